package main

import (
	"context"
	"fmt"
	"time"

	"github.com/leerstroom/leerstroom/pseudonymize/keyring"
	"github.com/leerstroom/leerstroom/pseudonymize/vault"
	"github.com/leerstroom/leerstroom/store"
)

// survey looks at everything that depends on key epochs.
type survey struct {
	deployment *deployment
	ring       *keyring.Ring
	identities *vault.Vault
	registries []*vault.Partition
	total      int64 // learners whose rows had to move when it was first looked at
}

func (d *deployment) newSurvey(ctx context.Context) (*survey, error) {
	identities, ring, err := d.openVault()
	if err != nil {
		return nil, err
	}
	s := &survey{deployment: d, ring: ring, identities: identities}
	for partition := range d.config.Topics.Partitions {
		registry, err := identities.Open(ctx, partition, vault.Follow)
		if err != nil {
			return nil, err
		}
		s.registries = append(s.registries, registry)
	}
	return s, nil
}

// left lists what depends on epochs before the given one, a line each.
func (s *survey) left(ctx context.Context, epoch uint32) (lines []string, err error) {
	pending, behind, err := s.orders(ctx, epoch)
	if err != nil {
		return nil, err
	}
	if pending > 0 {
		lines = append(lines, fmt.Sprintf("%d learners whose rows have not been ordered to move", pending))
	}
	if behind > 0 {
		lines = append(lines, fmt.Sprintf("%d partitions whose store has not followed yet", behind))
	}
	rows, messages, err := s.registry(ctx, epoch)
	if err != nil {
		return nil, err
	}
	if rows > 0 {
		lines = append(lines, fmt.Sprintf("%d rows of the registry's table", rows))
	}
	if messages > 0 {
		lines = append(lines, fmt.Sprintf("%d messages of the registry's log that the table lacks", messages))
	}
	stored, err := s.stored(ctx, epoch)
	return append(lines, stored...), err
}

// orders counts the learners whose move is not ordered, and the partitions whose
// store has not come to the last order.
func (s *survey) orders(ctx context.Context, epoch uint32) (pending, behind int64, err error) {
	reached, err := s.deployment.progress(ctx)
	if err != nil {
		return 0, 0, err
	}
	for partition, registry := range s.registries {
		if err := registry.Sync(ctx); err != nil {
			return 0, 0, err
		}
		state := registry.State()
		moved, at := state.MovedTo()
		switch {
		case state.Learners() == 0 || state.Epoch() == 0: // no token was ever made
		case moved < epoch && state.Epoch() < epoch: // the stage has not begun
			pending += int64(state.Learners())
		case moved < epoch:
			pending += int64(state.Pending().Rotation)
		case at >= 0 && reached[partition].Raw < at:
			behind++
		}
	}
	return pending, behind, nil
}

// progress tells how far the store has come.
func (d *deployment) progress(ctx context.Context) (reached map[int]store.Reached, err error) {
	persistence, err := d.openStore(ctx)
	if err != nil {
		return nil, err
	}
	defer closeStore(ctx, persistence, &err)
	return persistence.Progress(ctx)
}

func (s *survey) registry(ctx context.Context, epoch uint32) (rows, messages uint64, err error) {
	for partition := range s.registries {
		needs, err := s.identities.Needs(ctx, partition)
		if err != nil {
			return 0, 0, err
		}
		of := func(counts map[uint32]uint64) (sum uint64) {
			for e, n := range counts {
				if e < epoch {
					sum += n
				}
			}
			return sum
		}
		rows += max(of(needs.Rows), of(needs.Digest))
		messages += of(needs.Tail)
	}
	return rows, messages, nil
}

func (s *survey) stored(ctx context.Context, epoch uint32) (lines []string, err error) {
	persistence, err := s.deployment.openStore(ctx)
	if err != nil {
		return nil, err
	}
	defer closeStore(ctx, persistence, &err)
	counts, err := persistence.Epochs(ctx)
	for _, c := range counts {
		if c.Epoch < epoch {
			lines = append(lines, fmt.Sprintf("%d rows of %s under epoch %d", c.Rows, c.Table, c.Epoch))
		}
	}
	return lines, err
}

// purge takes rows of former epochs out of the registry's table, where the stage
// has written it anew.
func (s *survey) purge(ctx context.Context) error {
	for partition := range s.registries {
		registry, err := s.identities.Open(ctx, partition, vault.Follow)
		if err != nil {
			return err
		}
		if err := registry.Purge(ctx); err != nil {
			return err
		}
		s.registries[partition] = registry
	}
	return nil
}

// await shows how far a rotation is until nothing depends on older epochs.
func (s *survey) await(ctx context.Context, epoch uint32, bars *progress) error {
	ticker := time.NewTicker(surveyInterval)
	defer ticker.Stop()
	purged := time.Time{}
	for {
		pending, behind, err := s.orders(ctx, epoch)
		if err != nil {
			return err
		}
		s.total = max(s.total, pending)
		bars.set("learners moved", s.total-pending, s.total)
		bars.set("partitions followed", int64(len(s.registries))-behind, int64(len(s.registries)))
		if pending == 0 && behind == 0 && time.Since(purged) > 10*time.Second {
			if err := s.purge(ctx); err != nil {
				return err
			}
			purged = time.Now()
			left, err := s.left(ctx, epoch)
			if err != nil || len(left) == 0 {
				return err
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
