package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"regexp"
	"time"
	_ "time/tzdata" // days begin in Dutch time, also where the machine knows no zones

	"github.com/goccy/go-yaml"
	"github.com/leerstroom/leerstroom/ingest"
	"github.com/leerstroom/leerstroom/internal/access"
	"github.com/leerstroom/leerstroom/internal/audit"
	"github.com/leerstroom/leerstroom/internal/engine"
	"github.com/leerstroom/leerstroom/internal/stream"
	"github.com/leerstroom/leerstroom/pseudonymize/keyring"
	"github.com/leerstroom/leerstroom/query"
	"github.com/leerstroom/leerstroom/transform"
)

// configuration is everything that a deployment can set, in one YAML file.
// Unknown keys are errors; what is left out has the default that is written
// here. Secrets are never in it, only the paths of files that hold them.
type configuration struct {
	// Listen is the host:port of the HTTP interface (default 127.0.0.1:8080).
	Listen string `yaml:"listen"`
	// MetricsListen is the host:port where a process that runs pseudonymize or
	// transform alone serves /metrics and /healthz (default empty: nowhere). The other
	// stages do so where they listen.
	MetricsListen string `yaml:"metrics_listen"`
	// Engine says where Kafka and ClickHouse are; left out, both are embedded.
	Engine engine.Config `yaml:"engine"`
	// Replicated uses replicated table engines (ClickHouse cluster with Keeper).
	Replicated bool `yaml:"replicated"`

	Topics topicsConfig `yaml:"topics"`
	// Workers is how many partitions a stage works on at the same time (default 2),
	// beside three times as many with little to do.
	Workers int `yaml:"workers"`
	// MemoryLimitMiB is the soft limit of the memory of this process, engines
	// apart (default 0: 448, 640 with the embedded broker, and more when an eighth
	// above what is alive is). The collector works harder the nearer memory comes to
	// it.
	MemoryLimitMiB int `yaml:"memory_limit_mib"`
	// SessionTimeout is how long a worker may be silent before its partitions go
	// to others (default 10s). One that starts again on its data directory gets them
	// at once.
	SessionTimeout time.Duration `yaml:"session_timeout"`
	// NormInterval is the time between norm histograms in ClickHouse (default 1m).
	NormInterval time.Duration `yaml:"norm_interval"`
	// Ingest holds the limits of the connectors and the schools' authorisations.
	Ingest ingest.Config `yaml:"ingest"`
	// Engines are adaptive engines of other parties that get the answers of the
	// schools that authorise them, each in a topic of its own.
	Engines []engineConfig `yaml:"engines"`
	// EngineAuthorisations say which adaptive engines may process the learners of
	// a school: names of engines by school code. What is not there is refused.
	EngineAuthorisations ingest.Authorisations `yaml:"engine_authorisations"`
	// Keys say which key service keeps the keyset closed; left out, the file alone.
	Keys keyring.Command `yaml:"keys"`
	// Identities bound what a key may learn about identities.
	Identities identitiesConfig `yaml:"identities"`
	// Audit says how long the log of who saw which learners is kept.
	Audit audit.Config `yaml:"audit"`
	// Norms say at which moments of the school year norms are frozen.
	Norms normsConfig `yaml:"norms"`
	// Refit says when difficulties are refitted without being asked.
	Refit refitConfig `yaml:"refit"`

	path string // of the file; empty = none
}

// engineConfig is an adaptive engine that reads a topic.
type engineConfig struct {
	Name  string `yaml:"name"`
	Topic string `yaml:"topic"` // after topics.prefix (default engine-NAME)
}

// identitiesConfig says who may get tokens of whom, and how many.
type identitiesConfig struct {
	query.IdentityLimits `yaml:",inline"`
	// Provisional also gives tokens of learners that no roster knows, known from
	// answers alone. For a trial without rosters: it lets a publisher make learners
	// up.
	Provisional bool `yaml:"provisional"`
}

// normsConfig is the calendar of norms.
type normsConfig struct {
	// Moments of the school year (default M, 01-10 to 02-28, and E, 05-15 to 06-30).
	Moments []transform.Moment `yaml:"moments"`
	// Validity is how old a frozen norm may be to be used without being asked for
	// (default 19200h: two school years and a summer).
	Validity time.Duration `yaml:"validity"`
}

// dutchTime is where school days begin and end.
const dutchTime = "Europe/Amsterdam"

func (n *normsConfig) calendar() transform.Calendar {
	location, err := time.LoadLocation(dutchTime)
	if err != nil {
		panic("load time zone: " + err.Error()) // it is embedded
	}
	return transform.Calendar{Moments: n.Moments, Location: location}
}

// topicsConfig says how topics are named and made.
type topicsConfig struct {
	Prefix            string        `yaml:"prefix"`
	Partitions        int           `yaml:"partitions"`         // of topics that are partitioned by school; fixed for ever (default 64)
	ReplicationFactor int           `yaml:"replication_factor"` // default 1
	MinInsyncReplicas int           `yaml:"min_insync_replicas"`
	Retention         time.Duration `yaml:"retention"` // of every topic but registry (default 168h)
}

// loadConfiguration reads the file, or takes the defaults when path is empty.
func loadConfiguration(path string) (*configuration, error) {
	c := &configuration{path: path}
	if path != "" {
		file, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("read configuration: %w", err)
		}
		defer file.Close()
		if err := yaml.NewDecoder(file, yaml.Strict()).Decode(c); err != nil {
			return nil, fmt.Errorf("read configuration %s: %w", path, err)
		}
	}
	c.setDefaults()
	return c, c.validate()
}

// defaultPartitions is topics.partitions where the configuration does not say.
const defaultPartitions = 64

func (c *configuration) setDefaults() {
	if c.Listen == "" {
		c.Listen = "127.0.0.1:8080"
	}
	if c.Topics.Partitions == 0 {
		c.Topics.Partitions = defaultPartitions
	}
	if c.Topics.ReplicationFactor == 0 {
		c.Topics.ReplicationFactor = 1
	}
	if c.Topics.Retention == 0 {
		c.Topics.Retention = 7 * 24 * time.Hour
	}
	if c.Workers == 0 {
		c.Workers = 2
	}
	if c.SessionTimeout == 0 {
		c.SessionTimeout = 10 * time.Second
	}
	if c.NormInterval == 0 {
		c.NormInterval = time.Minute
	}
	for i := range c.Engines {
		c.Engines[i].Topic = cmp.Or(c.Engines[i].Topic, "engine-"+c.Engines[i].Name)
	}
	c.Identities.SetDefaults()
	c.Audit.SetDefaults()
	c.Refit.setDefaults()
	if len(c.Norms.Moments) == 0 {
		c.Norms.Moments = transform.DefaultMoments()
	}
	if c.Norms.Validity == 0 {
		c.Norms.Validity = 800 * 24 * time.Hour
	}
}

func (c *configuration) validate() error {
	switch {
	case c.Topics.Partitions < 1 || c.Topics.Partitions > 4096:
		return errors.New("configuration: topics.partitions: between 1 and 4096")
	case c.Topics.Retention < time.Hour:
		return errors.New("configuration: topics.retention: at least 1h, or an outage loses what is not stored yet")
	case c.Workers < 1:
		return errors.New("configuration: workers: at least 1")
	case c.MemoryLimitMiB < 0:
		return errors.New("configuration: memory_limit_mib: want 0, which chooses by itself, or more")
	case c.SessionTimeout < time.Second:
		return errors.New("configuration: session_timeout: at least 1s, or a pause of the garbage collector moves partitions")
	case c.NormInterval < time.Second:
		return errors.New("configuration: norm_interval: at least 1s")
	}
	calendar := c.Norms.calendar()
	if err := calendar.Validate(); err != nil {
		return fmt.Errorf("configuration: norms: %w", err)
	}
	if c.Norms.Validity < 24*time.Hour {
		return errors.New("configuration: norms.validity: at least 24h")
	}
	if err := c.Ingest.Validate(); err != nil {
		return fmt.Errorf("configuration: ingest: %w", err)
	}
	if err := c.EngineAuthorisations.Validate(); err != nil {
		return fmt.Errorf("configuration: engine_authorisations: %w", err)
	}
	if err := c.Keys.Validate(); err != nil {
		return fmt.Errorf("configuration: keys: %w", err)
	}
	if err := c.Identities.Validate(); err != nil {
		return fmt.Errorf("configuration: identities: %w", err)
	}
	if err := c.Audit.Validate(); err != nil {
		return fmt.Errorf("configuration: audit: %w", err)
	}
	if err := c.Refit.validate(); err != nil {
		return fmt.Errorf("configuration: refit: %w", err)
	}
	return c.validateEngines()
}

var topicForm = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,200}$`)

// validateEngines refuses two engines of one name, a topic that has another use,
// and the name that stands for the schools' own keys.
func (c *configuration) validateEngines() error {
	names, topics := make(map[string]bool), make(map[string]bool)
	for _, t := range c.coreTopics() {
		topics[t.Name] = true
	}
	for i, e := range c.Engines {
		topic := c.Topics.Prefix + e.Topic
		switch {
		case !access.ValidName(e.Name) || e.Name == query.SchoolEngine:
			return fmt.Errorf("configuration: engines: entry %d: name: want 1 to 64 of a-z 0-9 . _ - beginning with a letter or digit, and not %s", i+1, query.SchoolEngine)
		case names[e.Name]:
			return fmt.Errorf("configuration: engines: %s is there twice", e.Name)
		case !topicForm.MatchString(e.Topic):
			return fmt.Errorf("configuration: engines: %s: topic: want 1 to 200 of a-z A-Z 0-9 . _ -", e.Name)
		case topics[topic]:
			return fmt.Errorf("configuration: engines: %s: topic %s has another use", e.Name, topic)
		}
		names[e.Name], topics[topic] = true, true
	}
	return nil
}

func (c *configuration) names() stream.Topics { return stream.NewTopics(c.Topics.Prefix) }

// specs are all topics of the deployment.
func (c *configuration) specs() []stream.TopicSpec {
	specs := c.coreTopics()
	for _, e := range c.Engines {
		specs = append(specs, c.topic(c.Topics.Prefix+e.Topic, c.Topics.Partitions, c.Topics.Retention))
	}
	return specs
}

func (c *configuration) topic(name string, partitions int, retention time.Duration) stream.TopicSpec {
	return stream.TopicSpec{Name: name, Partitions: partitions, ReplicationFactor: c.Topics.ReplicationFactor,
		MinInsyncReplicas: c.Topics.MinInsyncReplicas, Retention: retention, SegmentPeriod: c.segmentPeriod()}
}

// segmentPeriod is how much longer than retention or an erasure allow a message may
// lie on a broker's disk.
func (c *configuration) segmentPeriod() time.Duration { return max(c.Topics.Retention/7, time.Hour) }

// coreTopics are those that every deployment has.
func (c *configuration) coreTopics() []stream.TopicSpec {
	names := c.names()
	skills := c.topic(names.Skills, c.Topics.Partitions, c.Topics.Retention)
	skills.Unsynced = true // the answers make them again
	return []stream.TopicSpec{
		c.topic(names.Raw, c.Topics.Partitions, c.Topics.Retention),
		c.topic(names.Answers, c.Topics.Partitions, c.Topics.Retention),
		c.topic(names.Registry, c.Topics.Partitions, 0),
		skills,
		c.topic(names.ItemSums, 1, c.Topics.Retention),
		c.topic(names.Items, 1, c.Topics.Retention),
		c.topic(names.DeadLetters, c.Topics.Partitions, c.Topics.Retention),
	}
}
