package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// JarsVariable is the environment variable that names the directory with the
// jars of Apache Kafka.
const JarsVariable = "LEERSTROOM_KAFKA_JARS"

// ErrNoKafka reports that Apache Kafka or Java is not installed.
var ErrNoKafka = errors.New("apache kafka not found")

// ApacheKafkaConfig describes one node of Apache Kafka.
type ApacheKafkaConfig struct {
	Dir  string // data, configuration and logs; made when missing
	Jars string // directory of the jars; empty means that FindKafkaJars looks for it
	Port int    // 0 takes that of the last run if it is free, else any

	// HeapMB is the size of the Java heap; 0 means 512.
	HeapMB int

	// Synced makes every write wait for the disk, like the embedded broker. Kafka
	// itself trusts replicas instead.
	Synced bool

	// ShortLived starts faster and then runs slower, for tests.
	ShortLived bool

	// Properties are added to server.properties and win.
	Properties map[string]string
}

// FindKafkaJars returns the directory that `make broker` fills: the one given,
// in the argument or in JarsVariable, or deploy/kafka/target/jars of the working
// directory or a directory above it.
func FindKafkaJars(dir string) (string, error) {
	if dir == "" {
		dir = os.Getenv(JarsVariable)
	}
	candidates := []string{dir}
	if dir == "" {
		candidates = nil
		at, err := os.Getwd()
		for err == nil {
			candidates = append(candidates, filepath.Join(at, "deploy", "kafka", "target", "jars"))
			if filepath.Dir(at) == at {
				break
			}
			at = filepath.Dir(at)
		}
	}
	for _, c := range candidates {
		if found, err := filepath.Glob(filepath.Join(c, "kafka_2.13-*.jar")); err == nil && len(found) == 1 {
			return filepath.Abs(c)
		}
	}
	return "", fmt.Errorf("%w: run `make broker` in the project directory (it needs mvn), or set %s to a directory with the jars", ErrNoKafka, JarsVariable)
}

// StartApacheKafka runs one node of Apache Kafka (broker and controller, KRaft)
// on loopback and returns when it answers. The caller closes it. On Linux it
// dies with this process.
func StartApacheKafka(ctx context.Context, config ApacheKafkaConfig) (*BrokerProcess, error) {
	jars, err := FindKafkaJars(config.Jars)
	if err != nil {
		return nil, err
	}
	java, err := exec.LookPath("java")
	if err != nil {
		return nil, fmt.Errorf("%w: java 17 or newer is needed: %w", ErrNoKafka, err)
	}
	if config.HeapMB == 0 {
		config.HeapMB = 512
	}
	if config.Dir, err = filepath.Abs(config.Dir); err != nil {
		return nil, fmt.Errorf("start apache kafka: %w", err)
	}
	if err := privateDir(config.Dir); err != nil {
		return nil, fmt.Errorf("start apache kafka: %w", err)
	}
	node := apacheNode{config: config, java: java, jars: jars}
	for attempt := 1; ; attempt++ {
		broker, chosen, err := node.start(ctx, attempt)
		if err == nil {
			return broker, nil
		}
		if !errors.Is(err, errEnded) || free(chosen) || config.Port != 0 && !free(ports{Native: config.Port}) || attempt == startAttempts {
			return nil, fmt.Errorf("start apache kafka: %w", err)
		}
	}
}

type apacheNode struct {
	config ApacheKafkaConfig
	java   string
	jars   string
}

func (n apacheNode) path(name string) string { return filepath.Join(n.config.Dir, name) }

func (n apacheNode) start(ctx context.Context, attempt int) (*BrokerProcess, ports, error) {
	last, err := readPorts(n.path(kafkaPortFile))
	if err != nil {
		return nil, last, err
	}
	if attempt > 1 {
		last = ports{}
	}
	// The controller's address is part of what the node remembers, so its port
	// too stays if it can.
	found, err := freePorts(cmp.Or(n.config.Port, last.Native), last.HTTP)
	if err != nil {
		return nil, last, err
	}
	chosen := ports{Native: cmp.Or(n.config.Port, found[0]), HTTP: found[1]}
	if err := n.configure(chosen); err != nil {
		return nil, chosen, err
	}
	if err := n.format(ctx); err != nil {
		return nil, chosen, err
	}
	command := n.command("kafka.Kafka", n.path("server.properties"))
	command.SysProcAttr = detached()
	broker, err := launchBroker(ctx, command, chosen.Native, false)
	if err != nil {
		return nil, chosen, err
	}
	if err := writePorts(n.path(kafkaPortFile), chosen); err != nil {
		return nil, chosen, errors.Join(err, broker.Kill())
	}
	return broker, chosen, nil
}

// configure writes server.properties. One node holds everything, so internal
// topics have one replica.
func (n apacheNode) configure(chosen ports) error {
	properties := map[string]string{
		"process.roles":                                    "broker,controller",
		"node.id":                                          "1",
		"listeners":                                        "PLAINTEXT://" + address(chosen.Native) + ",CONTROLLER://" + address(chosen.HTTP),
		"advertised.listeners":                             "PLAINTEXT://" + address(chosen.Native),
		"controller.listener.names":                        "CONTROLLER",
		"controller.quorum.voters":                         "1@" + address(chosen.HTTP),
		"log.dirs":                                         n.path("data"),
		"offsets.topic.replication.factor":                 "1",
		"offsets.topic.num.partitions":                     "4",
		"transaction.state.log.replication.factor":         "1",
		"transaction.state.log.min.isr":                    "1",
		"transaction.state.log.num.partitions":             "1",
		"share.coordinator.state.topic.replication.factor": "1",
		"share.coordinator.state.topic.min.isr":            "1",
		"auto.create.topics.enable":                        "false",
		"group.initial.rebalance.delay.ms":                 "0",
		"group.min.session.timeout.ms":                     "1000",
		// A node that was killed is let in again when its old session has expired.
		"broker.session.timeout.ms":      "2000",
		"broker.heartbeat.interval.ms":   "500",
		"message.max.bytes":              fmt.Sprint(maxBatchBytes),
		"num.network.threads":            "2",
		"num.io.threads":                 "4",
		"log.cleaner.dedupe.buffer.size": fmt.Sprint(16 << 20),
	}
	if n.config.Synced {
		properties["log.flush.interval.messages"] = "1"
	}
	for k, v := range n.config.Properties {
		properties[k] = v
	}
	var out strings.Builder
	for k, v := range properties {
		fmt.Fprintf(&out, "%s=%s\n", k, strings.ReplaceAll(v, `\`, `\\`))
	}
	if err := writeFile(n.path("log4j2.properties"), []byte(quietLog)); err != nil {
		return err
	}
	return writeFile(n.path("server.properties"), []byte(out.String()))
}

// quietLog prints warnings; what is printed last stands in the error when the
// node ends too early.
const quietLog = `status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %p %c{1}: %m%n%throwable{3}
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
`

// format gives the log directory its identity, once.
func (n apacheNode) format(ctx context.Context) error {
	_, err := os.Stat(n.path("data/meta.properties"))
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	command := n.command("kafka.tools.StorageTool", "format", "--config", n.path("server.properties"), "--cluster-id", "bGVlcnN0cm9vbS1sb2dfXw")
	output := &tail{limit: 8 << 10}
	command.Stdout, command.Stderr = output, output
	stop := context.AfterFunc(ctx, func() {
		if command.Process != nil {
			_ = command.Process.Kill() // Run returns its end as an error
		}
	})
	defer stop()
	if err := command.Run(); err != nil {
		return fmt.Errorf("format data directory: %w: %s", err, output)
	}
	return nil
}

// command runs a class of Kafka with flags for a small node: one that starts
// fast and collects garbage on one core.
func (n apacheNode) command(class string, arguments ...string) *exec.Cmd {
	flags := []string{
		fmt.Sprintf("-Xmx%dm", n.config.HeapMB), "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError", "-Xshare:auto",
		"-Djava.awt.headless=true", "-Dlog4j2.configurationFile=" + n.path("log4j2.properties"),
		"-cp", filepath.Join(n.jars, "*"), class,
	}
	if n.config.ShortLived {
		flags = append([]string{"-XX:TieredStopAtLevel=1"}, flags...)
	}
	command := exec.Command(n.java, append(flags, arguments...)...)
	command.Dir = n.config.Dir
	command.Env = []string{"PATH=" + os.Getenv("PATH"), "JAVA_HOME=" + os.Getenv("JAVA_HOME")}
	return command
}
