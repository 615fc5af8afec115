package bench

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"time"

	"github.com/leerstroom/leerstroom/ingest/raw"
	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/seal"
	"github.com/leerstroom/leerstroom/pseudonymize"
	"github.com/leerstroom/leerstroom/pseudonymize/keyring"
	"github.com/leerstroom/leerstroom/pseudonymize/vault"
)

// Names of the figures about identities.
const (
	figureTokenCore     = "tokens_per_second_per_core"
	figureTokenBare     = "bare_hmac_of_32_bytes_per_second_per_core"
	figureRegistry      = "registry_memory"
	figureResolution    = "resolutions_per_second_per_core"
	figureSeal          = "seal_per_row"
	figureSealSmall     = "seal_per_row_in_messages_of_10"
	figureWriteRaw      = "write_raw_per_row"
	figureOpen          = "open_per_row"
	figureOpenSmall     = "open_per_row_in_messages_of_10"
	figureStageRow      = "pseudonymize_processor_stages"
	figureRotation      = "rotation_rows_per_second"
	figureRotationToken = "rotation_learners_per_second"
)

// identity measures what it costs that nobody past pseudonymize knows a pupil.
func (r *runner) identity(ctx context.Context) (err error) {
	ring, err := keyring.Create(filepath.Join(r.config.Environment.Dir, "identity", "tokens.json"))
	if err != nil {
		return err
	}
	if err := r.tokens(ring); err != nil {
		return err
	}
	if err := r.registry(ring); err != nil {
		return err
	}
	if err := r.sealing(); err != nil {
		return err
	}
	return r.rotation(ctx)
}

// tokens measures tokens beside the HMAC that they are made of, in turns, so that
// both sides see the same machine.
func (r *runner) tokens(ring *keyring.Ring) error {
	const rounds, perRound, known = 16, 200_000, 4096
	tokenizer, err := pseudonymize.NewTokenizer(ring, keyring.Analytics, ring.Primary())
	if err != nil {
		return err
	}
	learners := make([]vault.Secret, known)
	random := rand.New(rand.NewPCG(r.config.Seed, known))
	for i := range learners {
		learners[i] = randomSecret(random)
	}
	mac, sum, message := hmac.New(sha256.New, []byte("a key of thirty-two bytes length")), [sha256.Size]byte{}, [32]byte{}
	var ours, bare time.Duration
	for range rounds {
		started := time.Now()
		for i := range perRound {
			copy(message[:16], learners[i%known].ID[:])
			copy(message[16:], learners[i%known].Salt[:])
			mac.Reset()
			mac.Write(message[:])
			mac.Sum(sum[:0])
		}
		bare += time.Since(started)
		started = time.Now()
		for i := range perRound {
			tokenizer.Token(&learners[i%known])
		}
		ours += time.Since(started)
	}
	r.results.add(figureTokenBare, rounds*perRound/bare.Seconds(), "tokens/s", "HMAC-SHA-256 alone of the 32 bytes that a token is made of, key schedule reused, on one core")
	r.results.add(figureTokenCore, rounds*perRound/ours.Seconds(), "tokens/s", "tokens of known learners on one core, in turns with that")
	r.results.compare(figureTokenCore, figureTokenBare)
	return nil
}

func randomSecret(random *rand.Rand) (s vault.Secret) {
	for _, field := range []*[16]byte{(*[16]byte)(&s.ID), &s.Salt} {
		binary.LittleEndian.PutUint64(field[:8], random.Uint64())
		binary.LittleEndian.PutUint64(field[8:], random.Uint64())
	}
	return s
}

// The registry that is measured: that of all Dutch primary schools.
const (
	registrySchools    = 6_400
	registryPartitions = 64
)

// registryAlias is the identifier of a learner under one of three schemes.
func (r *runner) registryAlias(learner int, scheme raw.Scheme) vault.Alias {
	a := vault.Alias{School: schoolCode(learner % registrySchools), Identifier: raw.Identifier{Scheme: scheme}}
	switch p := r.workload.Population; scheme {
	case raw.SchemeECKID:
		a.Value = p.Identifier(learner, "eckid")
	case raw.SchemeBasispoort:
		a.Value = p.Identifier(learner, "basispoort")
	default:
		a.Value = fmt.Sprint(1000 + learner/registrySchools)
	}
	return a
}

// registry measures the memory of the registry and how fast identifiers lead to
// learners when it is full: from the text of a normalised identifier, over its
// keyed digest, to the learner.
func (r *runner) registry(ring *keyring.Ring) error {
	digester, err := vault.NewDigester(ring, ring.Primary())
	if err != nil {
		return err
	}
	before := heapBytes()
	states := make([]*vault.State, registryPartitions)
	for i := range states {
		states[i] = vault.NewState()
	}
	random := rand.New(rand.NewPCG(r.config.Seed, registryPartitions))
	for learner := range r.config.RegistryLearners {
		secret := randomSecret(random)
		for _, scheme := range []raw.Scheme{raw.SchemeECKID, raw.SchemeBasispoort, raw.SchemeLAS} {
			record := vault.Record{Kind: vault.KindLink, Learner: secret.ID, Alias: r.registryAlias(learner, scheme)}
			if scheme == raw.SchemeECKID {
				record.Kind, record.Secret, record.Rostered = vault.KindCreate, secret, true
			}
			digest := digester.Of(&record.Alias)
			state := states[answer.PartitionOf(record.Alias.School, registryPartitions)]
			if state.Apply(int64(learner), &record, &digest) != vault.EffectDone {
				return fmt.Errorf("fill registry: the record of learner %d had no effect", learner)
			}
			state.ForgetChanges()
		}
	}
	r.results.add(figureRegistry, float64(heapBytes()-before)/(1<<20), "MiB",
		fmt.Sprintf("heap of the registry of %s learners with three aliases each, in %d partitions; at most 1,024 for 1,500,000 is promised",
			grouped(float64(r.config.RegistryLearners)), registryPartitions))
	rate, err := r.resolutions(&digester, states)
	if err != nil {
		return err
	}
	r.results.add(figureResolution, rate, "resolutions/s", "from an ECK iD to the learner in that registry, on one core; 1,000,000 is promised")
	return nil
}

// resolutions resolves identifiers of learners all over the registry, as the stage
// does those of a message: all digests and then all learners.
func (r *runner) resolutions(digester *vault.Digester, states []*vault.State) (float64, error) {
	const sample, total, atOnce = 1 << 17, 1 << 21, 1 << 10
	aliases, partitions := make([]vault.Alias, sample), make([]int, sample)
	for i := range aliases {
		aliases[i] = r.registryAlias(i*7919%r.config.RegistryLearners, raw.SchemeECKID)
		partitions[i] = answer.PartitionOf(aliases[i].School, len(states))
	}
	var digests [atOnce]vault.Digest
	started := time.Now()
	for begin := 0; begin < total; begin += atOnce {
		for i := range digests {
			digests[i] = digester.Of(&aliases[(begin+i)%sample])
		}
		for i := range digests {
			if states[partitions[(begin+i)%sample]].Lookup(&digests[i]) == 0 {
				return 0, errors.New("a known identifier was not found")
			}
		}
	}
	took := time.Since(started)
	runtime.KeepAlive(states)
	return total / took.Seconds(), nil
}

// heapBytes returns the memory of reachable objects.
func heapBytes() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// sealing measures what closing and opening messages of raw costs.
func (r *runner) sealing() error {
	private, err := seal.GenerateKey()
	if err != nil {
		return err
	}
	sealer, err := seal.NewSealer(seal.SealerConfig{Recipient: private.Public()})
	if err != nil {
		return err
	}
	opener, err := seal.NewOpener(private)
	if err != nil {
		return err
	}
	for _, size := range []struct {
		rows       int
		seal, open string
	}{{messageRows, figureSeal, figureOpen}, {10, figureSealSmall, figureOpenSmall}} {
		m, err := r.message(size.rows)
		if err != nil {
			return err
		}
		sealed := sealer.Seal(nil, m.plain, m.context)
		perRow := func(do func()) float64 {
			times := max(20, 2*messageRows/m.columns.Rows)
			started := time.Now()
			for range times {
				do()
			}
			return float64(time.Since(started).Nanoseconds()) / float64(times*m.columns.Rows)
		}
		plain, failed := make([]byte, 0, len(m.plain)), error(nil)
		open := func() {
			if plain, err = opener.Open(plain[:0], sealed, m.context); err != nil {
				failed = err
			}
		}
		r.results.add(size.seal, perRow(func() { sealed = sealer.Seal(sealed[:0], m.plain, m.context) }), "ns/row",
			fmt.Sprintf("sealing a message of raw of %d rows, its data key made before", m.columns.Rows))
		r.results.add(size.open, perRow(open), "ns/row", fmt.Sprintf("opening a message of raw of %d rows, its data key opened before", m.columns.Rows))
		if failed != nil {
			return failed
		}
		if size.rows == messageRows {
			if err := r.writeRaw(m, sealer); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeRaw measures the last step of a connector, of which sealing is a part.
func (r *runner) writeRaw(m *plainMessage, sealer *seal.Sealer) (err error) {
	const times = 20
	writer, buffer := raw.NewWriter(sealer, "raw"), []byte(nil)
	started := time.Now()
	for range times {
		if buffer, err = writer.AppendAnswers(buffer[:0], 0, m.columns); err != nil {
			return fmt.Errorf("write raw: %w", err)
		}
	}
	r.results.add(figureWriteRaw, float64(time.Since(started).Nanoseconds())/float64(times*m.columns.Rows), "ns/row",
		"a connector's last step: columns encoded and sealed")
	r.results.compare(figureSeal, figureWriteRaw)
	return nil
}

// plainMessage is a message of raw before it is sealed.
type plainMessage struct {
	columns *raw.Answers
	plain   []byte
	context []byte
}

// message returns a message of so many rows, or of all that the workload has for
// a partition.
func (r *runner) message(rows int) (*plainMessage, error) {
	var encoder raw.Encoder
	for partition, columns := range r.workload.RawMessages(1, rows) {
		plain, err := encoder.AppendAnswers(nil, columns)
		if err != nil {
			return nil, fmt.Errorf("encode a message: %w", err)
		}
		return &plainMessage{columns, plain, seal.AppendContext(nil, "raw", raw.SchemaAnswers, partition)}, nil
	}
	return nil, errors.New("the workload has no answers")
}
