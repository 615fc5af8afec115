package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/leerstroom/leerstroom/internal/audit"
	"github.com/leerstroom/leerstroom/internal/seal"
	"github.com/leerstroom/leerstroom/internal/stream"
)

// loadSealingKeys loads every private key that opens `raw` and dead letters, the
// one that connectors seal for first.
func loadSealingKeys(paths layout) ([]*seal.PrivateKey, error) {
	public, err := seal.LoadPublicKey(paths.public(sealRaw))
	if err != nil {
		return nil, err
	}
	files, err := sealingKeyFiles(paths)
	if err != nil {
		return nil, err
	}
	var keys []*seal.PrivateKey
	for _, path := range files {
		key, err := seal.LoadPrivateKey(path)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	current := slices.IndexFunc(keys, func(k *seal.PrivateKey) bool { return k.Public().ID() == public.ID() })
	if current < 0 {
		return nil, fmt.Errorf("load sealing keys: none of the %d private keys in %s belongs to %s: restore it from its backup", len(keys), paths.path("keys"), paths.public(sealRaw))
	}
	keys[0], keys[current] = keys[current], keys[0]
	return keys, nil
}

// sealingKeyFiles are raw.private, with which a deployment begins, and
// raw-ID.private, one for every rotation.
func sealingKeyFiles(paths layout) ([]string, error) {
	files, err := filepath.Glob(paths.path("keys", sealRaw+"-*.private"))
	if err != nil {
		return nil, fmt.Errorf("list sealing keys: %w", err)
	}
	if fileExists(paths.private(sealRaw)) {
		files = append([]string{paths.private(sealRaw)}, files...)
	}
	if len(files) == 0 {
		_, err := seal.LoadPrivateKey(paths.private(sealRaw))
		return nil, err
	}
	return files, nil
}

// sealRefresh is how often a connector looks for a new public key.
const sealRefresh = 5 * time.Second

// newSealer seals for the holder of the newest private key, also after a
// rotation.
func (d *deployment) newSealer() (*seal.Sealer, error) {
	path := d.layout.public(sealRaw)
	public, err := seal.LoadPublicKey(path)
	if err != nil {
		return nil, err
	}
	return seal.NewSealer(seal.SealerConfig{Recipient: public, Refresh: func() (*seal.PublicKey, error) { return seal.LoadPublicKey(path) }, RefreshEvery: sealRefresh})
}

// rotateSealingKey writes the private key first: a stage that meets a message
// for it looks for it then.
func (d *deployment) rotateSealingKey(out io.Writer) error {
	if _, err := loadSealingKeys(d.layout); err != nil {
		return err
	}
	key, err := seal.GenerateKey()
	if err != nil {
		return err
	}
	id, public := key.Public().ID(), d.layout.public(sealRaw)
	err = d.audited(audit.Record{Action: audit.ActionKeysRotate, Subject: "seal " + id.String()}, func(*audit.Record) error {
		if err := seal.WritePrivateKey(d.layout.private(sealRaw+"-"+id.String()), key); err != nil {
			return err
		}
		return seal.ReplacePublicKey(public, key.Public())
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "connectors seal for key %s within some seconds; hand %s to those on other machines\n", id, public)
	return nil
}

// retireSealingKey destroys a private key when no message is left that needs it:
// none of `raw` that has not passed the stage, and no dead letter.
func (d *deployment) retireSealingKey(ctx context.Context, name string, out io.Writer) error {
	keys, err := loadSealingKeys(d.layout)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(keys, func(k *seal.PrivateKey) bool { return k.Public().ID().String() == name })
	switch {
	case at < 0:
		return fmt.Errorf("no sealing key is called so: see leerstroom keys list: %w", errUsage)
	case at == 0:
		return fmt.Errorf("retire sealing key %s: %w: connectors seal with it, rotate first (leerstroom keys rotate --seal)", name, errDepends)
	}
	public, err := os.Stat(d.layout.public(sealRaw))
	if err != nil {
		return fmt.Errorf("retire sealing key %s: %w", name, err)
	}
	if left := 2*sealRefresh - time.Since(public.ModTime()); left > 0 {
		return fmt.Errorf("retire sealing key %s: %w: connectors may still seal for it, try again in %.0f s", name, errDepends, left.Seconds())
	}
	waiting, letters, err := d.sealedFor(ctx, keys[at].Public().ID())
	if err != nil {
		return err
	}
	if waiting+letters > 0 {
		return fmt.Errorf("retire sealing key %s: %w: %d messages of %s have not passed the stage, %d dead letters are sealed for it",
			name, errDepends, waiting, d.names.Raw, letters)
	}
	record := audit.Record{Action: audit.ActionKeysRetire, Subject: "seal " + name}
	if err := d.audited(record, func(*audit.Record) error { return destroySealingKey(d.layout, name) }); err != nil {
		return err
	}
	fmt.Fprintf(out, "sealing key %s is retired, its secret is destroyed\n", name)
	return nil
}

func destroySealingKey(paths layout, name string) error {
	files, err := sealingKeyFiles(paths)
	if err != nil {
		return err
	}
	for _, path := range files {
		key, err := seal.LoadPrivateKey(path)
		if err != nil {
			return err
		}
		if key.Public().ID().String() == name {
			if err := seal.DestroyPrivateKey(path); err != nil {
				return err
			}
		}
	}
	return nil
}

// sealedFor counts the messages that only a key opens.
func (d *deployment) sealedFor(ctx context.Context, id seal.KeyID) (waiting, letters int, err error) {
	count := func(topic string, partition int, from int64, sum *int) error {
		first, end, err := d.client.Offsets(ctx, topic, partition)
		if err != nil {
			return err
		}
		var batch stream.Batch
		for next := max(first, from); next < end; {
			if err := d.client.Fetch(ctx, topic, partition, next, time.Second, &batch); err != nil {
				return err
			}
			for i := range batch.Messages {
				if recipient, ok := seal.RecipientOf(batch.Messages[i].Value); ok && recipient == id {
					*sum++
				}
				next = batch.Messages[i].Offset + 1
			}
		}
		return nil
	}
	for partition := range d.config.Topics.Partitions {
		passed := int64(0)
		if last, found, err := d.client.Last(ctx, d.names.Answers, partition); err != nil {
			return 0, 0, err
		} else if found {
			if passed, err = last.Int64(stream.HeaderRawOffset); err != nil {
				return 0, 0, err
			}
			passed++
		}
		if err := count(d.names.Raw, partition, passed, &waiting); err != nil {
			return 0, 0, err
		}
		if err := count(d.names.DeadLetters, partition, 0, &letters); err != nil {
			return 0, 0, err
		}
	}
	return waiting, letters, nil
}
