package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/audit"
	"github.com/leerstroom/leerstroom/pseudonymize"
	"github.com/leerstroom/leerstroom/pseudonymize/keyring"
	"github.com/leerstroom/leerstroom/pseudonymize/vault"
	"github.com/leerstroom/leerstroom/store"
)

func newEraseCommand() *cobra.Command {
	var flags schoolFlags
	var alias, aliases string
	var again, asJSON bool
	var wait time.Duration
	command := &cobra.Command{
		Use:   "erase --school SCHOOL (--alias IDENTIFIER | --aliases FILE | --again)",
		Short: "Forget learners: identity, answers, and what they did to sums",
		Long: `Destroys salt, identifiers and name of a learner, orders all that store rows to
delete them and to take back what they did to sums and histograms, waits until
that is done, purges the bytes, and prints a certificate. It is kept in
erasures/ in the data directory and identifies nobody. The same pupil, delivered
again, is a stranger.

With --aliases it erases many learners together, an identifier a line, and
rewrites the tables once for all of them. When one of them is unknown, nobody is
erased.

With --again it erases every learner of the school that has a certificate and is
there once more, because a backup was restored.

` + aliasUsage,
		Example: `  leerstroom erase --school 12AB00 --alias las:4711 --data data
  leerstroom erase --school 12AB00 --alias - --data data < identifier
  leerstroom erase --school 12AB00 --aliases leavers.txt --data data`,
		Args: arguments(cobra.NoArgs),
		RunE: func(command *cobra.Command, _ []string) error {
			given := 0
			for _, is := range []bool{alias != "", aliases != "", again} {
				if is {
					given++
				}
			}
			if given != 1 {
				return fmt.Errorf("one of --alias, --aliases and --again is needed: %w", errUsage)
			}
			return withDeployment(command, &flags.stageFlags, func(ctx context.Context, d *deployment) error {
				e, err := d.newErasure(ctx, flags.school, wait, newProgress(command.ErrOrStderr()))
				if err != nil {
					return err
				}
				defer e.bars.close()
				if again {
					return e.again(ctx, asJSON, command.OutOrStdout())
				}
				var who []vault.Alias
				if aliases != "" {
					who, err = d.readAliases(command, flags.school, aliases)
				} else {
					who = make([]vault.Alias, 1)
					who[0], err = d.readAlias(command, flags.school, alias)
				}
				if err != nil {
					return err
				}
				certificates, err := e.audited(len(who), func() ([]*certificate, error) { return e.runAll(ctx, who) })
				if err != nil {
					return err
				}
				return printAll(certificates, command.OutOrStdout(), asJSON)
			})
		},
	}
	flags.add(command)
	command.Flags().StringVar(&alias, "alias", "", "identifier of the learner")
	command.Flags().StringVar(&aliases, "aliases", "", "file with identifiers of learners, one a line; - is standard input")
	command.Flags().BoolVar(&again, "again", false, "repeat the erasures of this school after a restore")
	command.Flags().BoolVar(&asJSON, "json", false, "print certificates as JSON, an object after the other")
	command.Flags().DurationVar(&wait, "wait", 10*time.Minute, "how long the stages may take to follow")
	return command
}

func printAll(certificates []*certificate, out io.Writer, asJSON bool) error {
	for _, c := range certificates {
		if err := c.print(out, asJSON); err != nil {
			return err
		}
	}
	return nil
}

// certificate says what was erased, and identifies nobody.
type certificate struct {
	Format    string    `json:"format"`
	Tombstone string    `json:"tombstone"` // the learner's random id, which nothing leads to any more
	School    string    `json:"school"`
	ErasedAt  time.Time `json:"erased_at"`
	Learners  int       `json:"learners"` // records of the registry that were this learner
	Tokens    int       `json:"tokens"`   // under which rows could be stored

	Partition     int      `json:"partition"`
	OrderedAt     int64    `json:"ordered_at"`     // offset of raw, at the latest
	StoreFollowed int64    `json:"store_followed"` // offset of raw that the store had reached
	RowsLeft      int64    `json:"rows_left"`      // rows of the store under the tokens
	RegistryBelow int64    `json:"registry_below"` // the registry's log was deleted below this offset
	AnswersBelow  int64    `json:"answers_below"`  // the same of the topic answers
	RawBelow      int64    `json:"raw_below"`      // the same of the topic raw
	SkillsBelow   int64    `json:"skills_below"`   // the same of the topic skills
	Remaining     []string `json:"remaining"`      // what goes later by itself

	Digest string `json:"digest"` // SHA-256 of this object with an empty digest
}

const certificateFormat = "leerstroom erasure v1"

func (c *certificate) sign() error {
	c.Digest = ""
	content, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("write certificate: %w", err)
	}
	sum := sha256.Sum256(content)
	c.Digest = hex.EncodeToString(sum[:])
	return nil
}

func (c *certificate) print(out io.Writer, asJSON bool) error {
	if asJSON {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(c)
	}
	fmt.Fprintf(out, `Certificate of erasure %s
  school              %s
  erased at           %s
  records, tokens     %d, %d
  ordered and followed up to offset %d and %d of partition %d
  rows left           %d
`, c.Tombstone, c.School, c.ErasedAt.Format(time.RFC3339), c.Learners, c.Tokens, c.OrderedAt, c.StoreFollowed, c.Partition, c.RowsLeft)
	for _, r := range c.Remaining {
		fmt.Fprintln(out, "  goes by itself      "+r)
	}
	fmt.Fprintf(out, "  digest              %s\n", c.Digest)
	return nil
}

// write keeps the certificate; it is durable before the command ends.
func (c *certificate) write(directory string) error {
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return fmt.Errorf("write certificate: %w", err)
	}
	content, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return fmt.Errorf("write certificate: %w", err)
	}
	file, err := os.CreateTemp(directory, ".erasure-*")
	if err != nil {
		return fmt.Errorf("write certificate: %w", err)
	}
	_, err = file.Write(append(content, '\n'))
	err = errors.Join(err, file.Sync(), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), filepath.Join(directory, c.Tombstone+".json"))
	}
	if err != nil {
		return fmt.Errorf("write certificate: %w", errors.Join(err, os.Remove(file.Name())))
	}
	return nil
}

// erasure erases learners of one school.
type erasure struct {
	deployment *deployment
	school     string
	partition  int
	identities *vault.Vault
	registry   *vault.Partition
	issue      vault.Issue
	wait       time.Duration
	bars       *progress
}

func (d *deployment) newErasure(ctx context.Context, school string, wait time.Duration, bars *progress) (*erasure, error) {
	identities, ring, err := d.openVault()
	if err != nil {
		return nil, err
	}
	purposes := []keyring.Purpose{keyring.Analytics}
	for _, e := range d.config.Engines {
		purposes = append(purposes, keyring.Engine(e.Name))
	}
	e := &erasure{deployment: d, school: school, partition: answer.PartitionOf(school, d.config.Topics.Partitions), identities: identities,
		issue: pseudonymize.Issue(ring, purposes...), wait: wait, bars: bars}
	e.registry, err = identities.Open(ctx, e.partition, vault.Follow)
	return e, err
}

// audited erases learners and keeps on record who did it.
func (e *erasure) audited(asked int, erase func() ([]*certificate, error)) (all []*certificate, err error) {
	err = e.deployment.audited(audit.Record{Action: audit.ActionErase, School: e.school, Asked: asked}, func(r *audit.Record) (err error) {
		if all, err = erase(); err == nil {
			r.Given = asked
		}
		return err
	})
	return all, err
}

// erased is an erasure that the registry has recorded.
type erased struct {
	certificate *certificate
	tombstone   vault.Tombstone
}

// runAll erases the learners of aliases. Two may be the same learner's.
func (e *erasure) runAll(ctx context.Context, who []vault.Alias) ([]*certificate, error) {
	var ids []vault.LearnerID
	for i := range who {
		secret, err := e.registry.Find(who[i])
		if err != nil {
			return nil, fmt.Errorf("erase, identifier %d: %w", i+1, err)
		}
		if !slices.Contains(ids, secret.ID) {
			ids = append(ids, secret.ID)
		}
	}
	return e.run(ctx, ids)
}

// run erases learners and returns their certificates when everything has
// followed. A certificate begins as a note that --again goes by, if this is
// interrupted.
func (e *erasure) run(ctx context.Context, ids []vault.LearnerID) ([]*certificate, error) {
	var all []erased
	for i, id := range ids {
		if i > 0 && e.registry.State().LookupID(id) == 0 {
			continue // it was merged with one before
		}
		c := &certificate{Format: certificateFormat, Tombstone: hex.EncodeToString(id[:]), School: e.school,
			ErasedAt: time.Now().UTC().Truncate(time.Second), Partition: e.partition}
		if err := c.write(e.directory()); err != nil {
			return nil, err
		}
		tombstone, err := e.registry.Erase(ctx, id, e.issue)
		if err != nil {
			return nil, err
		}
		all = append(all, erased{c, tombstone})
		e.bars.set("learners", int64(i+1), int64(len(ids)))
	}
	return e.finish(ctx, all)
}

func (e *erasure) directory() string { return e.deployment.erasures() }

// erasures is where certificates are kept.
func (d *deployment) erasures() string { return d.layout.path("erasures") }

// finish waits for erasures that the registry has recorded, purges, and signs
// the certificates.
func (e *erasure) finish(ctx context.Context, all []erased) (certificates []*certificate, err error) {
	for i := range all {
		c, t := all[i].certificate, &all[i].tombstone
		c.Learners, c.Tokens = len(t.Learners), len(t.Tokens)
		certificates = append(certificates, c)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, e.wait, errors.New("the stages have not followed in time: see that pseudonymize and transform run, then use --again"))
	defer cancel()
	var together certificate // what is the same for all
	err = e.follow(ctx, &together, all, e.registry.Offset())
	if err == nil {
		err = e.purge(ctx, &together, all)
	}
	if err != nil {
		if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) { // the time ended within a call
			err = fmt.Errorf("%w (%w)", cause, err)
		}
		return nil, fmt.Errorf("erase: %w", err)
	}
	for _, c := range certificates {
		c.OrderedAt, c.StoreFollowed, c.RowsLeft, c.Remaining = together.OrderedAt, together.StoreFollowed, together.RowsLeft, together.Remaining
		c.RegistryBelow, c.AnswersBelow, c.RawBelow, c.SkillsBelow = together.RegistryBelow, together.AnswersBelow, together.RawBelow, together.SkillsBelow
		if err := errors.Join(c.sign(), c.write(e.directory())); err != nil {
			return nil, err
		}
	}
	return certificates, nil
}

// follow waits until the erasures are told in answers, the store has come there,
// and the registry's table contains them.
func (e *erasure) follow(ctx context.Context, c *certificate, all []erased, registryOffset int64) error {
	const steps = 3
	for step := int64(0); step < steps; {
		done, err := e.step(ctx, step, c, all, registryOffset)
		if err != nil {
			return err
		}
		if done {
			step++
			e.bars.set("erasure", step, steps)
			continue
		}
		select {
		case <-time.After(surveyInterval):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

func (e *erasure) step(ctx context.Context, step int64, c *certificate, all []erased, registryOffset int64) (done bool, err error) {
	switch step {
	case 0:
		if err := e.registry.Sync(ctx); err != nil {
			return false, err
		}
		_, c.OrderedAt = e.registry.State().MovedTo()
		pending := slices.ContainsFunc(all, func(one erased) bool { return e.registry.State().ErasurePending(one.tombstone.ID()) })
		return !pending, nil
	case 1:
		reached, err := e.deployment.progress(ctx)
		c.StoreFollowed = reached[e.partition].Raw
		return err == nil && c.StoreFollowed >= c.OrderedAt, err
	default:
		needs, err := e.identities.Needs(ctx, e.partition)
		return err == nil && needs.Next >= registryOffset, err
	}
}

// purge takes the bytes off the disk, as far as anybody can, and proves that the
// store shows nothing of the learners. Tables are rewritten once for all of them.
func (e *erasure) purge(ctx context.Context, c *certificate, all []erased) (err error) {
	d := e.deployment
	registry, err := e.identities.Open(ctx, e.partition, vault.Follow)
	if err != nil {
		return err
	}
	if err := registry.Purge(ctx); err != nil {
		return err
	}
	persistence, err := d.openStore(ctx)
	if err != nil {
		return err
	}
	defer closeStore(ctx, persistence, &err)
	if c.RowsLeft, err = persistence.Traces(ctx, e.school, tokensOf(all)); err != nil {
		return err
	}
	if c.RowsLeft > 0 {
		return fmt.Errorf("%d rows of erased learners are in the store after it had followed: run leerstroom fsck", c.RowsLeft)
	}
	if err := persistence.Purge(ctx); err != nil {
		return err
	}
	if c.RegistryBelow, err = e.identities.TrimLog(ctx, e.partition); err != nil {
		return err
	}
	if err := e.trim(ctx, c, persistence); err != nil {
		return err
	}
	c.Remaining = d.config.remaining()
	return nil
}

// remaining says what an erasure leaves to time: nothing of it can be read through
// the engines, and nothing of it leads to a pupil.
func (c *configuration) remaining() []string {
	period := c.segmentPeriod()
	all := []string{
		fmt.Sprintf("files of Kafka with deleted messages (raw and registry: sealed; answers and skills: tokens without salt): within %s; "+
			"of the embedded Kafka at its next start, or when 1 MiB more has come", period),
		"files of ClickHouse with replaced rows (the vault's: sealed; others: tokens without salt): about 8 minutes",
		fmt.Sprintf("dead letters, sealed: within %s, or with leerstroom deadletter purge", c.Topics.Retention+period),
	}
	if len(c.Engines) > 0 {
		all = append(all, fmt.Sprintf("messages of the engines' topics, which the engines have to read (tokens without salt): within %s", c.Topics.Retention+period))
	}
	return all
}

// tokensOf returns the tokens under which the store may have rows.
func tokensOf(all []erased) (tokens []answer.Token) {
	for i := range all {
		for _, t := range all[i].tombstone.Tokens {
			if t.Purpose == keyring.Analytics {
				tokens = append(tokens, pseudonymize.TokenOf(t))
			}
		}
	}
	return tokens
}

// trim deletes what the topics hold and nobody reads any more: all that the store
// has. The last messages of raw and answers have to stay, because they tell the
// stages where to go on; an empty one is written for that.
func (e *erasure) trim(ctx context.Context, c *certificate, persistence *store.Store) error {
	d := e.deployment
	last, err := pseudonymize.WritePlace(ctx, d.client, d.names.Raw, e.partition)
	if err != nil {
		return err
	}
	var reached store.Reached
	for reached.Raw < last {
		select {
		case <-time.After(surveyInterval):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		all, err := persistence.Progress(ctx)
		if err != nil {
			return err
		}
		reached = all[e.partition]
	}
	for _, t := range []struct {
		topic string
		below int64
		noted *int64
	}{{d.names.Raw, reached.Raw, &c.RawBelow}, {d.names.Answers, reached.Answers, &c.AnswersBelow}, {d.names.Skills, reached.Skills + 1, &c.SkillsBelow}} {
		first, end, err := d.client.Offsets(ctx, t.topic, e.partition)
		if err != nil {
			return err
		}
		*t.noted = max(first, min(t.below, end))
		if *t.noted > first {
			if err := d.client.DeleteRecords(ctx, t.topic, e.partition, *t.noted); err != nil {
				return err
			}
		}
	}
	return nil
}

// again erases the learners of certificates that the registry knows, and
// finishes erasures that were interrupted.
func (e *erasure) again(ctx context.Context, asJSON bool, out io.Writer) error {
	files, err := filepath.Glob(filepath.Join(e.directory(), "*.json"))
	if err != nil {
		return fmt.Errorf("list certificates: %w", err)
	}
	slices.Sort(files)
	erased := 0
	for _, path := range files {
		c, id, err := readCertificate(path)
		if err != nil {
			return err
		}
		if c.School != e.school {
			continue
		}
		var done []*certificate
		switch {
		case e.registry.State().LookupID(id) != 0:
			done, err = e.audited(1, func() ([]*certificate, error) { return e.run(ctx, []vault.LearnerID{id}) })
		case c.Digest == "":
			done, err = e.audited(1, func() ([]*certificate, error) { return e.takeUp(ctx, c, id) })
		default:
			continue
		}
		if err == nil {
			err = printAll(done, out, asJSON)
		}
		if err != nil {
			return err
		}
		erased++
	}
	fmt.Fprintf(out, "%d certificates, %d erasures repeated or finished\n", len(files), erased)
	return nil
}

// takeUp finishes an erasure that the registry has recorded. Its tombstone is read
// from the registry's table, where the stage writes it within seconds.
func (e *erasure) takeUp(ctx context.Context, c *certificate, id vault.LearnerID) ([]*certificate, error) {
	waiting, cancel := context.WithTimeoutCause(ctx, e.wait, errors.New("the registry's table does not hold the tombstone: see that pseudonymize runs, and try again"))
	defer cancel()
	for {
		tombstones, err := e.registry.Tombstones(waiting)
		if err != nil {
			return nil, fmt.Errorf("erase: %w", err)
		}
		for i := range tombstones {
			if slices.Contains(tombstones[i].Learners, id) {
				return e.finish(ctx, []erased{{c, tombstones[i]}})
			}
		}
		select {
		case <-time.After(surveyInterval):
		case <-waiting.Done():
			return nil, fmt.Errorf("erase: %w", context.Cause(waiting))
		}
	}
}

func readCertificate(path string) (c *certificate, id vault.LearnerID, err error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, id, fmt.Errorf("read certificate: %w", err)
	}
	if err := json.Unmarshal(content, &c); err != nil || c.Format != certificateFormat {
		return nil, id, fmt.Errorf("read certificate %s: it is damaged", path)
	}
	raw, err := hex.DecodeString(c.Tombstone)
	if err != nil || len(raw) != len(id) {
		return nil, id, fmt.Errorf("read certificate %s: the tombstone is no id", path)
	}
	return c, vault.LearnerID(raw), nil
}
