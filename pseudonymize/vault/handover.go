package vault

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/leerstroom/leerstroom/internal/handover"
)

// Handover gives what the owner of a partition reads of the table to a follower
// in the same process. The zero value is usable.
type Handover struct{ restored handover.Handover[*Partition] }

// offer shows a partition as the table has it.
func (h *Handover) offer(p *Partition) {
	if h != nil {
		h.restored.Offer(p.number, p)
	}
}

// await makes a partition a copy of one that is offered.
func (h *Handover) await(ctx context.Context, partition int, patience time.Duration, to *Partition) bool {
	if h == nil {
		return false
	}
	var err error
	taken := h.restored.Await(ctx, partition, patience, func(from *Partition) { err = to.copyFold(from) })
	return taken && err == nil
}

// copyFold takes over the fold of another partition object, which has just read
// the table.
func (p *Partition) copyFold(from *Partition) (err error) {
	p.empty()
	p.state = from.state.clone()
	p.next, p.flushed, p.former, p.aliasEpoch = from.next, from.flushed, from.former, from.aliasEpoch
	p.digester, err = NewDigester(p.vault.config.Ring, p.aliasEpoch)
	return err
}

// clone copies the state. Schools and tombstones are never changed, and shared.
func (s *State) clone() *State {
	c := *s
	c.aliases.slots, c.ids.slots = slices.Clone(s.aliases.slots), slices.Clone(s.ids.slots)
	c.secrets, c.school, c.flags = slices.Clone(s.secrets), slices.Clone(s.school), slices.Clone(s.flags)
	c.schools, c.schoolIndex = slices.Clone(s.schools), maps.Clone(s.schoolIndex)
	c.merged, c.merges, c.graves = maps.Clone(s.merged), maps.Clone(s.merges), slices.Clone(s.graves)
	c.changedLearners, c.changedAliases = slices.Clone(s.changedLearners), slices.Clone(s.changedAliases)
	c.droppedNames, c.changedGraves = slices.Clone(s.droppedNames), slices.Clone(s.changedGraves)
	return &c
}
