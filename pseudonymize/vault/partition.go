package vault

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/leerstroom/leerstroom/internal/stream"
	"github.com/leerstroom/leerstroom/pseudonymize/keyring"
)

// SchemaRegistry names the form of the messages of `registry`.
const SchemaRegistry = "registry.v1"

// Config says where the registry lives. The fields down to Native are needed.
type Config struct {
	Ring     *keyring.Ring
	Client   *stream.Client
	Topic    string // registry
	Conn     driver.Conn
	Native   []ch.Options // of the servers that Conn is to; bulk reads have a connection of their own
	Restored *Handover    // with who else opens registries in this process; nil = nobody
	Database string       // empty means leerstroom_vault
	Logger   *slog.Logger

	// Mint draws a learner's id and salt. Nil draws them at random, and so it must
	// be outside of tests that compare runs byte by byte.
	Mint func(alias *Digest) (Secret, error)
}

// DefaultDatabase is the vault's database.
const DefaultDatabase = "leerstroom_vault"

// Validate names the first field that is missing.
func (c *Config) Validate() error {
	switch {
	case c.Ring == nil:
		return errors.New("vault: no keyring is loaded: create or restore the keyset first")
	case c.Client == nil:
		return errors.New("vault: field client is missing")
	case c.Topic == "":
		return errors.New("vault: field topic is missing")
	case c.Conn == nil:
		return errors.New("vault: field conn is missing")
	case len(c.Native) == 0:
		return errors.New("vault: field native is missing")
	}
	return nil
}

// Vault opens the registries of partitions. It is safe for concurrent use.
type Vault struct{ config Config }

// New makes a vault. It touches nothing yet.
func New(config Config) (*Vault, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	if config.Database == "" {
		config.Database = DefaultDatabase
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	if config.Mint == nil {
		config.Mint = mint
	}
	return &Vault{config: config}, nil
}

// mint draws a learner's id and salt.
func mint(*Digest) (Secret, error) {
	var s Secret
	if _, err := rand.Read(s.ID[:]); err != nil {
		return s, fmt.Errorf("draw learner id: %w", err)
	}
	if _, err := rand.Read(s.Salt[:]); err != nil {
		return s, fmt.Errorf("draw salt: %w", err)
	}
	return s, nil
}

// Mode says what a Partition is opened for.
type Mode uint8

// The modes.
const (
	// Follow reads the registry and may append to it, but leaves the table to
	// the owner.
	Follow Mode = iota
	// Own is for the stage that the partition is assigned to: it also writes the
	// table.
	Own
)

// Limits of what waits to be written to the table.
const (
	flushEntries = 4096   // written when there are more
	maxEntries   = 262144 // more than this are not kept: the partition waits
)

// Partition is the registry of one partition: its state, its place in the log
// and what waits to be written to the table. It is for one goroutine.
type Partition struct {
	vault  *Vault
	number int
	mode   Mode

	state      *State
	aliasEpoch uint32 // epoch of the digests in state
	digester   Digester
	sealer     *Sealer
	next       int64 // registry offset to read next: everything below is folded
	flushed    int64 // next as the table has it
	former     bool  // the table holds rows of epochs before aliasEpoch

	pending map[Digest][]byte        // sealed aliases that the table lacks
	names   map[LearnerID][]byte     // sealed names that the table lacks, nil for one that goes
	graves  map[LearnerID]*Tombstone // tombstones that the table lacks
	stored  map[LearnerID]Name       // names of the schools whose roster is being imported

	announcements []*Announcement // that may not be in `answers` yet

	batch     stream.Batch
	plain     []byte // an opened message
	scratch   []byte // an alias or salt on its way into or out of a seal
	encoded   []byte // a message before it is sealed
	partition [2]byte
}

// Open restores the registry of a partition from the table and replays the rest
// of its log. ErrKeyset means that the loaded keyset is not the one of this
// deployment; ErrGap that records are gone which the table does not contain.
func (v *Vault) Open(ctx context.Context, partition int, mode Mode) (*Partition, error) {
	p := v.partition(partition, mode)
	err := p.load(ctx)
	if errors.Is(err, ErrGap) {
		// Between the two readings the table may have been written and the log been
		// trimmed up to there.
		err = p.load(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("open registry of partition %d: %w", partition, err)
	}
	return p, nil
}

// Beside opens the registry of a partition to follow it, from what its owner in
// this process reads of the table. It returns nil when nobody does before patience
// is over, and when the log was trimmed meanwhile: then Open has to read it.
func (v *Vault) Beside(ctx context.Context, partition int, patience time.Duration) (*Partition, error) {
	p := v.partition(partition, Follow)
	if !v.config.Restored.await(ctx, partition, patience, p) {
		return nil, nil
	}
	if err := p.followLog(ctx); errors.Is(err, ErrGap) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("open registry of partition %d: %w", partition, err)
	}
	return p, nil
}

func (v *Vault) partition(number int, mode Mode) *Partition {
	return &Partition{vault: v, number: number, mode: mode, sealer: NewSealer(v.config.Ring), partition: [2]byte{byte(number >> 8), byte(number)}}
}

// load reads the table and then the rest of the log.
func (p *Partition) load(ctx context.Context) error {
	if err := p.restore(ctx); err != nil {
		return err
	}
	if p.mode == Own {
		p.vault.config.Restored.offer(p)
	}
	return p.followLog(ctx)
}

// followLog folds the log behind what the table has.
func (p *Partition) followLog(ctx context.Context) error {
	first, end, err := p.vault.config.Client.Offsets(ctx, p.vault.config.Topic, p.number)
	if err != nil {
		return err
	}
	if p.next < first || p.next > end {
		return fmt.Errorf("%w: the table ends before offset %d, the log holds %d to %d; restore the one that is behind", ErrGap, p.next, first, end)
	}
	return p.follow(ctx, end)
}

// State returns the folded registry. It changes with Sync and Append.
func (p *Partition) State() *State { return p.state }

// Offset returns the registry offset below which everything is folded.
func (p *Partition) Offset() int64 { return p.next }

// Digest returns the digest of a normalised alias, as this partition knows it.
func (p *Partition) Digest(a *Alias) Digest { return p.digester.Of(a) }

// Digests returns how many digests this partition has computed.
func (p *Partition) Digests() uint64 { return p.digester.Sums() }

// Wipe clears the last alias from working memory.
func (p *Partition) Wipe() {
	p.digester.Wipe()
	clear(p.plain[:cap(p.plain)])
	clear(p.scratch[:cap(p.scratch)])
	clear(p.encoded[:cap(p.encoded)])
}

// Sync folds what others have written since. It returns at once when there is
// nothing.
func (p *Partition) Sync(ctx context.Context) error {
	if err := p.follow(ctx, -1); err != nil {
		return fmt.Errorf("sync registry of partition %d: %w", p.number, err)
	}
	return nil
}

// Watch makes a watch of the partition's log, for who would call Sync often.
func (p *Partition) Watch() *stream.Watch {
	return stream.NewWatch(p.vault.config.Client, p.vault.config.Topic, p.number)
}

// Follow waits for news for a while and folds it while it holds the lock, under
// which State is read by others; done is called under the lock, too, when there
// was news.
func (p *Partition) Follow(ctx context.Context, lock sync.Locker, done func() error) error {
	if err := p.fetch(ctx, stream.LongestWait); err != nil {
		return fmt.Errorf("follow registry of partition %d: %w", p.number, err)
	}
	if len(p.batch.Messages) == 0 {
		return nil
	}
	lock.Lock()
	defer lock.Unlock()
	if err := p.foldBatch(); err != nil {
		return fmt.Errorf("follow registry of partition %d: %w", p.number, err)
	}
	return done()
}

func (p *Partition) fetch(ctx context.Context, wait time.Duration) error {
	err := p.vault.config.Client.Fetch(ctx, p.vault.config.Topic, p.number, p.next, wait, &p.batch)
	if errors.Is(err, stream.ErrOffsetOutOfRange) {
		return fmt.Errorf("%w: its beginning was deleted after the table had taken it in; open the registry again: %w", ErrGap, err)
	}
	return err
}

func (p *Partition) foldBatch() error {
	for i := range p.batch.Messages {
		if err := p.fold(&p.batch.Messages[i]); err != nil {
			return fmt.Errorf("fold registry offset %d: %w", p.batch.Messages[i].Offset, err)
		}
	}
	return nil
}

// follow folds the log up to its end, and at least up to an offset.
func (p *Partition) follow(ctx context.Context, until int64) error {
	for {
		wait := time.Duration(0)
		if p.next < until {
			wait = time.Second
		}
		if err := p.fetch(ctx, wait); err != nil {
			return err
		}
		if err := p.foldBatch(); err != nil {
			return err
		}
		if p.next >= max(until, p.batch.HighWatermark) {
			return nil
		}
		if len(p.batch.Messages) > 0 && p.mode == Own && p.FlushDue() {
			if err := p.Flush(ctx); err != nil {
				return err
			}
		}
	}
}

// fold opens a message of the log and applies its records.
func (p *Partition) fold(m *stream.Message) error {
	if err := stream.CheckNext(m.Offset, p.next); err != nil {
		return fmt.Errorf("%w: %w", ErrGap, err)
	}
	plain, err := p.sealer.Open(p.plain[:0], m.Value, []byte(contextRecord), p.partition[:])
	if err != nil {
		return err
	}
	p.plain = plain
	reader := readRecords(plain)
	var r Record
	for reader.next(&r) {
		if _, err := p.apply(m.Offset, &r); err != nil {
			return err
		}
	}
	clear(plain)
	if reader.err != nil {
		return reader.err
	}
	p.next = m.Offset + 1
	return nil
}

// apply folds a record and keeps what the table needs of it.
func (p *Partition) apply(offset int64, r *Record) (Effect, error) {
	var digest Digest
	if r.HasAlias() {
		digest = p.digester.Of(&r.Alias)
	}
	effect := p.state.Apply(offset, r, &digest)
	if p.mode != Own {
		p.state.ForgetChanges()
		return effect, nil
	}
	if effect == EffectDone && r.Kind == KindAnnounce {
		p.announcements = append(p.announcements, p.state.lastAnnouncement)
	}
	for _, t := range p.state.changedGraves {
		p.graves[t.ID()] = t
	}
	p.state.changedGraves = p.state.changedGraves[:0]
	if err := p.keepNames(r, effect); err != nil {
		return effect, err
	}
	for _, d := range p.state.changedAliases {
		if d != digest {
			p.pending[d] = nil // taken away
			continue
		}
		sealed, err := p.sealAlias(&d, &r.Alias)
		if err != nil {
			return effect, err
		}
		p.pending[d] = sealed
	}
	p.state.changedAliases = p.state.changedAliases[:0]
	return effect, nil
}

// keepNames keeps what the table needs of names.
func (p *Partition) keepNames(r *Record, effect Effect) (err error) {
	for _, id := range p.state.droppedNames {
		p.names[id] = nil
	}
	p.state.droppedNames = p.state.droppedNames[:0]
	if r.Kind != KindName || effect != EffectDone || !r.Name.known() {
		return nil
	}
	id := p.state.secrets[p.state.LookupID(r.Learner)].ID
	p.names[id], err = p.sealName(id, &r.Name)
	return err
}

func (p *Partition) sealAlias(digest *Digest, a *Alias) ([]byte, error) {
	p.scratch = appendAlias(p.scratch[:0], a)
	sealed, err := p.sealer.Seal(nil, p.scratch, []byte(contextRow), []byte{rowAlias}, p.partition[:], digest[:])
	clear(p.scratch)
	return sealed, err
}

// Append writes records to the log as one message and folds it, together with
// whatever others wrote before it. The effects tell what each record did when
// its turn came; they are not known (nil) when others came first, and the state
// has to be looked at again. Records that don't fit one message are refused.
func (p *Partition) Append(ctx context.Context, records []Record) (effects []Effect, err error) {
	message, err := p.encode(records)
	if err != nil {
		return nil, fmt.Errorf("append to registry of partition %d: %w", p.number, err)
	}
	base, err := p.vault.config.Client.Produce(ctx, p.vault.config.Topic, p.number, message)
	if err != nil {
		return nil, fmt.Errorf("append to registry of partition %d: %w", p.number, err)
	}
	if base != p.next {
		// Somebody wrote in between, or a retried request wrote twice: the log
		// decides, so it is read.
		if err := p.follow(ctx, base+1); err != nil {
			return nil, fmt.Errorf("append to registry of partition %d: %w", p.number, err)
		}
		return nil, nil
	}
	effects = make([]Effect, len(records))
	for i := range records {
		if effects[i], err = p.apply(base, &records[i]); err != nil {
			return nil, fmt.Errorf("append to registry of partition %d: %w", p.number, err)
		}
	}
	p.next = base + 1
	return effects, nil
}

func (p *Partition) encode(records []Record) (stream.Message, error) {
	p.encoded = beginRecords(p.encoded[:0])
	for i := range records {
		var err error
		if p.encoded, err = appendRecord(p.encoded, &records[i]); err != nil {
			return stream.Message{}, fmt.Errorf("record %d: %w", i, err)
		}
	}
	if len(p.encoded) > maxMessageBytes {
		return stream.Message{}, fmt.Errorf("%d records make %d bytes, at most %d", len(records), len(p.encoded), maxMessageBytes)
	}
	sealed, err := p.sealer.Seal(nil, p.encoded, []byte(contextRecord), p.partition[:])
	clear(p.encoded)
	if err != nil {
		return stream.Message{}, err
	}
	return stream.Message{Value: sealed, Headers: []stream.Header{
		{Key: stream.HeaderSchema, Value: []byte(SchemaRegistry)},
		stream.Int64Header(stream.HeaderKeyEpoch, int64(SealedEpoch(sealed))),
	}}, nil
}

// Create makes a learner for every alias that the registry does not know. After
// it every alias has a learner: the new one, or one that somebody else made
// first. The aliases must be normalised; rostered tells that a roster names them.
func (p *Partition) Create(ctx context.Context, aliases []Alias, rostered bool) error {
	for len(aliases) > 0 {
		records, rest, err := p.creations(aliases, rostered)
		if err != nil {
			return fmt.Errorf("create learners in partition %d: %w", p.number, err)
		}
		aliases = rest
		if len(records) == 0 {
			return nil
		}
		if _, err := p.Append(ctx, records); err != nil {
			return err
		}
		for i := range records {
			digest := p.digester.Of(&records[i].Alias)
			if p.state.Lookup(&digest) == 0 {
				return fmt.Errorf("create learners in partition %d: a created alias is not in the registry", p.number)
			}
		}
	}
	return nil
}

// creations makes one message's worth of records for the unknown ones of the
// aliases, one each.
func (p *Partition) creations(aliases []Alias, rostered bool) (records []Record, rest []Alias, err error) {
	seen := make(map[Digest]bool)
	for size := 1; len(aliases) > 0 && size <= maxMessageBytes-maxRecordBytes; aliases = aliases[1:] {
		digest := p.digester.Of(&aliases[0])
		if seen[digest] || p.state.Lookup(&digest) != 0 {
			continue
		}
		seen[digest] = true
		secret, err := p.vault.config.Mint(&digest)
		if err != nil {
			return nil, nil, err
		}
		records = append(records, Record{Kind: KindCreate, Alias: aliases[0], Secret: secret, Rostered: rostered})
		size += maxRecordBytes - maxValueBytes + len(aliases[0].Value)
	}
	return records, aliases, nil
}

// Adopt records that everything folded so far is in force from an offset of
// `raw` on, and that tokens are made under the keyring's primary epoch from
// there. It writes only when something changed. The caller must have made every
// answer below the offset durable, and must use nothing new before it returns.
func (p *Partition) Adopt(ctx context.Context, rawOffset int64) error {
	for {
		var records []Record
		if primary := p.vault.config.Ring.Primary(); primary > p.state.Epoch() {
			records = append(records, Record{Kind: KindEpoch, Epoch: primary})
		}
		if len(records) == 0 && !p.state.NeedsAdoption() {
			return nil
		}
		// The epoch record lies at p.next and is part of what is adopted, unless
		// somebody writes in between; then another round follows.
		records = append(records, Record{Kind: KindAdopt, RegistryOffset: p.next + 1, RawOffset: rawOffset})
		if _, err := p.Append(ctx, records); err != nil {
			return err
		}
	}
}
