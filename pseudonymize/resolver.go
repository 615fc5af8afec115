package pseudonymize

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/leerstroom/leerstroom/ingest/raw"
	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/pseudonymize/keyring"
	"github.com/leerstroom/leerstroom/pseudonymize/vault"
)

// ErrLoading reports that a partition's registry is not in memory yet.
var ErrLoading = errors.New("registry is being loaded")

// ResolverConfig says what the resolver works with. All fields but Engines,
// Loaders, Logger and Patience are needed.
type ResolverConfig struct {
	Ring       *keyring.Ring
	Vault      *vault.Vault
	Partitions int
	Engines    []string // adaptive engines whose tokens are mapped back from the start; others when first asked for
	Loaders    int      // partitions that are loaded at the same time; 0 means 2
	Logger     *slog.Logger

	// Patience is how long each partition waits, at the start, for its owner in
	// this process to read the registry, before it is read once more; 0 = there is
	// no owner.
	Patience time.Duration
}

// Resolver follows the registry and maps identifiers to tokens, and tokens of an
// engine to those of the analytics tables. It creates nothing: an identifier
// that the registry does not know stays unknown, and finding that out takes the
// same work as making a token. Rate limits, authorisation and audit are the
// caller's. It is safe for concurrent use.
type Resolver struct {
	config ResolverConfig
	parts  []followed
	ready  chan struct{}

	mu     sync.RWMutex
	tables map[keyring.Purpose]*reverseTable
}

// followed is the registry of one partition with tokenizers for it.
type followed struct {
	mu         sync.Mutex
	registry   *vault.Partition // nil while it is loaded
	began      bool             // whether it was opened before
	tokenizers map[tokenizerName]*Tokenizer
	reversed   map[keyring.Purpose]reversed
}

// reversed tells which learners of a partition are in a reverse table.
type reversed struct {
	last   vault.Learner
	epochs []uint32
}

type tokenizerName struct {
	purpose keyring.Purpose
	epoch   uint32
}

// NewResolver makes a resolver; Run loads and follows.
func NewResolver(config ResolverConfig) (*Resolver, error) {
	switch {
	case config.Ring == nil:
		return nil, errors.New("resolver: no keyring is loaded: create or restore the keyset first")
	case config.Vault == nil:
		return nil, errors.New("resolver: field vault is missing")
	case config.Partitions <= 0:
		return nil, errors.New("resolver: field partitions is missing")
	}
	if config.Loaders == 0 {
		config.Loaders = 2
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Resolver{config: config, parts: make([]followed, config.Partitions), tables: make(map[keyring.Purpose]*reverseTable), ready: make(chan struct{})}
	for i := range r.parts {
		r.parts[i].tokenizers = make(map[tokenizerName]*Tokenizer)
		r.parts[i].reversed = make(map[keyring.Purpose]reversed)
	}
	for _, name := range config.Engines {
		purpose := keyring.Engine(name)
		if err := purpose.Validate(); err != nil {
			return nil, fmt.Errorf("resolver: %w", err)
		}
		r.tables[purpose] = new(reverseTable)
	}
	return r, nil
}

// Ready is closed when all partitions are in memory.
func (r *Resolver) Ready() <-chan struct{} { return r.ready }

// Run loads all partitions and follows the registry until ctx ends (nil). What
// fails for a while is tried again; a wrong keyset or a gap in the log ends it.
func (r *Resolver) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	loaders := make(chan struct{}, r.config.Loaders)
	var loading sync.WaitGroup
	loading.Add(len(r.parts))
	for partition := range r.parts {
		group.Go(func() error {
			loaded := sync.OnceFunc(loading.Done)
			defer loaded()
			return r.follow(ctx, partition, loaders, loaded)
		})
	}
	group.Go(func() error {
		loading.Wait()
		if ctx.Err() == nil {
			close(r.ready)
		}
		return nil
	})
	return group.Wait()
}

func (r *Resolver) follow(ctx context.Context, partition int, loaders chan struct{}, loaded func()) error {
	f := &r.parts[partition]
	for pause := 50 * time.Millisecond; ctx.Err() == nil; {
		err := r.step(ctx, f, partition, loaders)
		switch {
		case err == nil:
			loaded()
			pause = 50 * time.Millisecond
			continue
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, vault.ErrKeyset), errors.Is(err, vault.ErrGap), errors.Is(err, vault.ErrMalformed), errors.Is(err, vault.ErrSealed):
			return err
		}
		r.config.Logger.WarnContext(ctx, "following the registry failed, trying again", "partition", partition, "error", err)
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
		case <-timer.C:
		}
		pause = min(2*pause, 2*time.Second)
	}
	return nil
}

// step loads the partition, or waits a moment for news and folds it.
func (r *Resolver) step(ctx context.Context, f *followed, partition int, loaders chan struct{}) error {
	if f.registry != nil { // written by this goroutine alone
		err := f.registry.Follow(ctx, &f.mu, func() error { return r.reverse(f, partition) })
		if !errors.Is(err, vault.ErrGap) {
			return err
		}
		// The log was trimmed up to what the table contains: begin from the table.
	}
	registry, err := r.open(ctx, f, partition, loaders)
	if registry == nil || err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.registry, f.reversed = registry, make(map[keyring.Purpose]reversed)
	r.forget(partition)
	return r.reverse(f, partition)
}

// open opens the registry of a partition, nil when ctx has ended.
func (r *Resolver) open(ctx context.Context, f *followed, partition int, loaders chan struct{}) (*vault.Partition, error) {
	if !f.began { // afterwards the owner has begun, too
		f.began = true
		if registry, err := r.config.Vault.Beside(ctx, partition, r.config.Patience); registry != nil || err != nil {
			return registry, err
		}
	}
	select {
	case loaders <- struct{}{}:
		defer func() { <-loaders }()
	case <-ctx.Done():
		return nil, nil
	}
	return r.config.Vault.Open(ctx, partition, vault.Follow)
}

// Resolution is the answer for one identifier.
type Resolution struct {
	Token    answer.Token
	Epoch    uint32 // of the key that made the token
	Known    bool   // false: the registry does not know the identifier; the rest is zero
	Rostered bool   // a roster knows the learner; false: provisional, known from answers alone
}

// Resolve maps identities to tokens of a purpose and appends one Resolution for
// each to dst, in order. It returns ErrLoading while a needed partition is not
// in memory.
func (r *Resolver) Resolve(dst []Resolution, purpose keyring.Purpose, identities []raw.Identity) ([]Resolution, error) {
	start := len(dst)
	for i := range identities {
		a := vault.Normalise(identities[i])
		if vault.Check(&a) != nil {
			dst = append(dst, Resolution{})
			continue
		}
		resolution, err := r.resolve(purpose, &a)
		if err != nil {
			return dst[:start], err
		}
		dst = append(dst, resolution)
	}
	return dst, nil
}

func (r *Resolver) resolve(purpose keyring.Purpose, a *vault.Alias) (Resolution, error) {
	f := &r.parts[answer.PartitionOf(a.School, len(r.parts))]
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.registry == nil {
		return Resolution{}, ErrLoading
	}
	state := f.registry.State()
	digest := f.registry.Digest(a)
	l := state.Lookup(&digest)
	if state.Epoch() == 0 {
		return Resolution{}, nil // nobody of the partition has a token yet
	}
	tokenizer, err := f.tokenizer(r.config.Ring, purpose, state.Epoch())
	if err != nil {
		return Resolution{}, err
	}
	// An unknown identifier costs what a known one costs: the secret of some
	// learner is fetched from memory, and a token made that nobody gets.
	subject := l
	if l == 0 {
		subject = stranger(&digest, state)
	}
	token := tokenizer.Token(state.Secret(subject))
	if l == 0 {
		return Resolution{}, nil
	}
	return Resolution{Token: token, Epoch: state.Epoch(), Known: true, Rostered: state.Rostered(l)}, nil
}

// stranger returns the learner whose secret stands in for that of an unknown
// identifier: any one, but the same at every question, so that the processor's
// caches tell as little as the clock.
func stranger(d *vault.Digest, state *vault.State) vault.Learner {
	if state.Learners() == 0 {
		return 0
	}
	return vault.Learner(1 + binary.LittleEndian.Uint64(d[:8])%uint64(state.Learners()))
}

// tokenizer returns the tokenizer of a purpose and epoch. f.mu is held.
func (f *followed) tokenizer(ring *keyring.Ring, purpose keyring.Purpose, epoch uint32) (*Tokenizer, error) {
	name := tokenizerName{purpose, epoch}
	if t, ok := f.tokenizers[name]; ok {
		return t, nil
	}
	t, err := NewTokenizer(ring, purpose, epoch)
	if errors.Is(err, keyring.ErrUnknownEpoch) { // another process rotated
		if err := ring.Refresh(); err != nil {
			return nil, err
		}
		t, err = NewTokenizer(ring, purpose, epoch)
	}
	if err != nil {
		return nil, err
	}
	f.tokenizers[name] = t
	return t, nil
}

// Analytics appends to dst the analytics tokens of the learner whom an engine
// knows by a token, newest key epoch first: during a rotation there are several,
// because stored rows follow later. It appends nothing for a token that is
// unknown, or whose learner was erased.
func (r *Resolver) Analytics(dst []answer.Token, engine string, token answer.Token) ([]answer.Token, error) {
	dst, _, err := r.Learner(dst, keyring.Engine(engine), token)
	return dst, err
}

// Learner does what Analytics does for the token of any purpose, and also
// returns the learner's school. The first question for a purpose takes as long
// as computing the tokens of all learners.
func (r *Resolver) Learner(dst []answer.Token, purpose keyring.Purpose, token answer.Token) (tokens []answer.Token, school string, err error) {
	table, err := r.table(purpose)
	if err != nil {
		return dst, "", err
	}
	place, ok := table.find(token)
	if !ok {
		return dst, "", nil
	}
	f := &r.parts[place.partition]
	f.mu.Lock()
	defer f.mu.Unlock()
	if place, ok = table.find(token); !ok { // places change only under the lock
		return dst, "", nil
	}
	state := f.registry.State()
	l := state.MergedInto(place.learner)
	if !state.Live(l) {
		return dst, "", nil
	}
	epochs := f.reversed[purpose].epochs
	for i := len(epochs) - 1; i >= 0; i-- {
		tokenizer, err := f.tokenizer(r.config.Ring, keyring.Analytics, epochs[i])
		if errors.Is(err, keyring.ErrUnknownEpoch) {
			continue // retired: no row is left under it
		}
		if err != nil {
			return dst, "", err
		}
		dst = append(dst, tokenizer.Token(state.Secret(l)))
	}
	return dst, state.School(l), nil
}

// Present maps analytics tokens to those of another purpose, in order; the zero
// token stands for a learner who is not known any more.
func (r *Resolver) Present(purpose keyring.Purpose, analytics []answer.Token) ([]answer.Token, error) {
	table, err := r.table(keyring.Analytics)
	if err != nil {
		return nil, err
	}
	out := make([]answer.Token, len(analytics))
	for i := range analytics {
		place, ok := table.find(analytics[i])
		if !ok {
			continue
		}
		if out[i], err = r.present(purpose, table, analytics[i], place); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (r *Resolver) present(purpose keyring.Purpose, table *reverseTable, token answer.Token, place reversePlace) (answer.Token, error) {
	f := &r.parts[place.partition]
	f.mu.Lock()
	defer f.mu.Unlock()
	place, ok := table.find(token) // places change only under the lock
	if !ok {
		return answer.Token{}, nil
	}
	state := f.registry.State()
	l := state.MergedInto(place.learner)
	if !state.Live(l) {
		return answer.Token{}, nil
	}
	tokenizer, err := f.tokenizer(r.config.Ring, purpose, state.Epoch())
	if err != nil {
		return answer.Token{}, err
	}
	return tokenizer.Token(state.Secret(l)), nil
}

// table returns the reverse table of a purpose. One that is new is filled from
// the partitions that are loaded; the others add to it when they are.
func (r *Resolver) table(purpose keyring.Purpose) (*reverseTable, error) {
	r.mu.RLock()
	table, ok := r.tables[purpose]
	r.mu.RUnlock()
	if ok {
		return table, nil
	}
	if !purpose.MakesTokens() {
		return nil, fmt.Errorf("resolver: purpose %q makes no tokens", string(purpose))
	}
	r.mu.Lock()
	if table, ok = r.tables[purpose]; !ok {
		table = new(reverseTable)
		r.tables[purpose] = table
	}
	r.mu.Unlock()
	for partition := range r.parts {
		if err := r.reverseLoaded(partition, purpose, table); err != nil {
			return nil, err
		}
	}
	return table, nil
}

func (r *Resolver) reverseLoaded(partition int, purpose keyring.Purpose, table *reverseTable) error {
	f := &r.parts[partition]
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.registry == nil {
		return nil
	}
	return r.reverseInto(f, partition, purpose, table)
}

// forget takes the learners of a partition out of all reverse tables. The lock of
// the partition is held.
func (r *Resolver) forget(partition int) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, table := range r.tables {
		table.drop(partition)
	}
}

// reverse brings the reverse tables up to date with a partition. f.mu is held.
func (r *Resolver) reverse(f *followed, partition int) error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for purpose, table := range r.tables {
		if err := r.reverseInto(f, partition, purpose, table); err != nil {
			return err
		}
	}
	return nil
}

// reverseInto adds the learners of a partition that a table does not have yet.
// f.mu is held.
func (r *Resolver) reverseInto(f *followed, partition int, purpose keyring.Purpose, table *reverseTable) error {
	state := f.registry.State()
	last := vault.Learner(state.Learners())
	epochs := readable(r.config.Ring, state.Epoch())
	done := f.reversed[purpose]
	begin := done.last + 1
	if len(epochs) > len(done.epochs) || len(epochs) > 0 && epochs[len(epochs)-1] != done.epochs[len(done.epochs)-1] {
		begin = 1
	}
	for _, epoch := range epochs {
		tokenizer, err := f.tokenizer(r.config.Ring, purpose, epoch)
		if err != nil {
			return err
		}
		table.add(tokenizer, state, partition, begin, last)
	}
	f.reversed[purpose] = reversed{last: last, epochs: epochs}
	return nil
}

// readable returns the epochs up to the given one whose keys are not destroyed.
func readable(ring *keyring.Ring, upTo uint32) []uint32 {
	var epochs []uint32
	for _, e := range ring.Epochs() {
		if e.State != keyring.StateRetired && e.Epoch <= upTo {
			epochs = append(epochs, e.Epoch)
		}
	}
	return epochs
}
