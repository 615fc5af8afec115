package main

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/pseudonymize/vault"
	"github.com/leerstroom/leerstroom/store"
)

// returned counts, by school, the learners who have a certificate of erasure and
// are known to the registry all the same: a backup from before was restored, or an
// erasure was interrupted. It also returns the number of certificates.
func (d *deployment) returned(ctx context.Context, identities *vault.Vault) (back map[string]int, certificates int, err error) {
	files, err := filepath.Glob(filepath.Join(d.erasures(), "*.json"))
	if err != nil {
		return nil, 0, fmt.Errorf("list certificates: %w", err)
	}
	back = make(map[string]int)
	registries := make(map[int]*vault.Partition)
	for _, path := range files {
		c, id, err := readCertificate(path)
		if err != nil {
			return nil, 0, err
		}
		partition := answer.PartitionOf(c.School, d.config.Topics.Partitions)
		if registries[partition] == nil {
			if registries[partition], err = identities.Open(ctx, partition, vault.Follow); err != nil {
				return nil, 0, err
			}
		}
		if registries[partition].State().LookupID(id) != 0 {
			back[c.School]++
		}
	}
	return back, len(files), nil
}

// erasedStayAway reports whether anybody who was erased is back.
func (d *deployment) erasedStayAway(ctx context.Context, identities *vault.Vault, report func(store.Line)) error {
	back, certificates, err := d.returned(ctx, identities)
	if err != nil {
		return err
	}
	line := store.Line{Check: "erased learners stay away", OK: len(back) == 0, Detail: fmt.Sprintf("%d certificates of erasure", certificates)}
	if !line.OK {
		var schools []string
		for _, school := range slices.Sorted(maps.Keys(back)) {
			schools = append(schools, fmt.Sprintf("%d of school %s: leerstroom erase --school %s --again", back[school], school, school))
		}
		line.Detail = strings.Join(schools, "; ")
	}
	report(line)
	if !line.OK {
		return fmt.Errorf("check: %w: learners are there again who were erased", store.ErrDifference)
	}
	return nil
}

// warnOfReturned says in the log that erasures have to be repeated. The stages work
// meanwhile: it reads the registry of every school that has a certificate.
func (d *deployment) warnOfReturned(ctx context.Context) {
	var back map[string]int
	identities, _, err := d.openVault()
	if err == nil {
		back, _, err = d.returned(ctx, identities)
	}
	if err != nil && ctx.Err() == nil {
		d.logger.ErrorContext(ctx, "it is not known whether learners are there again who were erased: run leerstroom fsck", "error", err)
	}
	for school, n := range back {
		d.logger.ErrorContext(ctx, "learners are there again who were erased: repeat it with leerstroom erase --again", "school", school, "learners", n)
	}
}
