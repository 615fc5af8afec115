package vault

import (
	"bytes"
	"context"
	"fmt"
	"slices"
)

// Changes of the registry concern rows that were stored before: two learners
// became one, a learner was erased, the key epoch advanced. Whoever stores rows
// learns of it from the log of answers, at a position. An announcement is the
// record that fixes the position: it gives the next pending orders, in an order
// that follows from the registry alone, to one offset of `raw`. What it orders is
// a function of the registry log up to it, so a replay and a second worker give
// the same.

// Order is one thing that those who store rows have to do. An erasure has Erased
// only; a move has the rest.
type Order struct {
	School string

	From, Into Secret        // rows of From belong to Into; the same learner after a rotation
	Epochs     []uint32      // under which rows of From may be stored
	Epoch      uint32        // under which Into's rows are stored from now on
	Erased     []IssuedToken // rows under these tokens go
}

// Announcement is what one message of `answers` orders.
type Announcement struct {
	RawOffset int64
	Epoch     uint32 // of the tokens that rows move to
	Orders    []Order
}

// MaxOrders bounds the moves and the tokens of erasures of one announcement; a
// single erasure may exceed it.
const MaxOrders = 5000

// announcing is the part of the state that tells what is announced.
type announcing struct {
	moved        uint32    // no row is left under an older epoch once all that was announced is followed; 0 = no epoch yet
	target       uint32    // epoch of the rotation that is being announced, 0 = none
	cursor       LearnerID // the last learner, by id, whose rotation is announced
	announcedRaw int64     // raw offset of the last announcement, -1 = none

	merges map[Learner]struct{} // merged learners whose rows have not been ordered to move
	graves []*Tombstone         // erasures that are not announced

	lastAnnouncement *Announcement // by the record that was folded last
}

// Pending counts what is not announced yet.
type Pending struct {
	Erasures, Merges int
	Rotation         int // learners whose rows are still under an older epoch
}

// Any tells whether there is anything to announce.
func (p Pending) Any() bool { return p.Erasures+p.Merges+p.Rotation > 0 }

// Pending tells what is not announced yet. It looks at every learner during a
// rotation.
func (s *State) Pending() Pending {
	p := Pending{Erasures: len(s.graves), Merges: len(s.merges)}
	if s.moved < s.epoch {
		cursor := s.rotationCursor()
		for l := Learner(1); int(l) < len(s.secrets); l++ {
			if s.Live(l) && after(&s.secrets[l].ID, cursor) {
				p.Rotation++
			}
		}
	}
	return p
}

// Unannounced tells whether there is anything to announce, at no cost.
func (s *State) Unannounced() bool {
	return len(s.graves) > 0 || len(s.merges) > 0 || s.moved < s.epoch
}

// MovedTo returns the epoch that all rows are under once everything announced
// below the raw offset, inclusive, is followed.
func (s *State) MovedTo() (epoch uint32, rawOffset int64) { return s.moved, s.announcedRaw }

// ErasurePending tells whether the erasure of a learner is not announced yet.
func (s *State) ErasurePending(id LearnerID) bool {
	return slices.ContainsFunc(s.graves, func(t *Tombstone) bool { return t.ID() == id })
}

func after(id, cursor *LearnerID) bool { return bytes.Compare(id[:], cursor[:]) > 0 }

// rotationCursor returns where the rotation to the newest epoch stands. One that
// began for an older epoch begins again.
func (s *State) rotationCursor() *LearnerID {
	if s.target == s.epoch {
		return &s.cursor
	}
	return new(LearnerID)
}

// announce takes the next orders and marks them announced. A second announcement
// for an offset, or one for an earlier offset, changes nothing.
func (s *State) announce(r *Record) Effect {
	if r.RawOffset <= s.announcedRaw {
		return EffectNone
	}
	s.announcedRaw = r.RawOffset
	a := &Announcement{RawOffset: r.RawOffset, Epoch: s.epoch}
	left := s.announceErasures(a, int(r.Limit))
	left = s.announceMerges(a, left)
	s.announceRotation(a, left)
	s.lastAnnouncement = a
	return EffectDone
}

func (s *State) announceErasures(a *Announcement, limit int) (left int) {
	slices.SortFunc(s.graves, func(x, y *Tombstone) int { return slices.Compare(x.Learners[0][:], y.Learners[0][:]) })
	n := 0
	for n < len(s.graves) && (limit >= len(s.graves[n].Tokens) || n == 0 && len(a.Orders) == 0) {
		t := s.graves[n]
		a.Orders = append(a.Orders, Order{School: t.School, Erased: t.Tokens})
		s.changedGraves = append(s.changedGraves, t)
		limit -= len(t.Tokens)
		n++
	}
	s.graves = slices.Delete(s.graves, 0, n)
	if len(s.graves) > 0 {
		return 0
	}
	return limit
}

func (s *State) announceMerges(a *Announcement, limit int) (left int) {
	if limit <= 0 || len(s.merges) == 0 {
		return limit
	}
	epochs := span(s.moved, s.epoch)
	all := make([]Learner, 0, len(s.merges))
	for l := range s.merges {
		all = append(all, l)
	}
	for _, l := range s.smallest(all, (limit+len(epochs)-1)/len(epochs)) {
		root := s.root(l)
		a.Orders = append(a.Orders, Order{School: s.School(root), From: s.secrets[l], Into: s.secrets[root], Epochs: epochs, Epoch: s.epoch})
		s.settleMerge(l)
		limit -= len(epochs)
	}
	return limit
}

func (s *State) announceRotation(a *Announcement, limit int) {
	if limit <= 0 || s.moved >= s.epoch {
		return
	}
	if s.target != s.epoch {
		s.target, s.cursor = s.epoch, LearnerID{}
	}
	epochs := span(s.moved, s.epoch-1)
	var rest []Learner
	for l := Learner(1); int(l) < len(s.secrets); l++ {
		if s.Live(l) && after(&s.secrets[l].ID, &s.cursor) {
			rest = append(rest, l)
		}
	}
	next := s.smallest(rest, (limit+len(epochs)-1)/len(epochs))
	for _, l := range next {
		a.Orders = append(a.Orders, Order{School: s.School(l), From: s.secrets[l], Into: s.secrets[l], Epochs: epochs, Epoch: s.epoch})
		s.cursor = s.secrets[l].ID
	}
	if len(next) == len(rest) {
		s.moved, s.target, s.cursor = s.epoch, 0, LearnerID{}
	}
}

// settleMerge marks that a merged learner's rows need no order any more.
func (s *State) settleMerge(l Learner) {
	if _, pending := s.merges[l]; pending {
		delete(s.merges, l)
		s.flags[l] &^= flagPending
		s.touch(l)
	}
}

// smallest returns the n learners with the smallest ids, in their order. Ids are
// random, so the n-th smallest is found by their first bytes in about one pass.
func (s *State) smallest(learners []Learner, n int) []Learner {
	byID := func(a, b Learner) int { return bytes.Compare(s.secrets[a].ID[:], s.secrets[b].ID[:]) }
	if n >= len(learners) {
		slices.SortFunc(learners, byID)
		return learners
	}
	var counts [1 << 16]int32
	first := func(l Learner) int { return int(s.secrets[l].ID[0])<<8 | int(s.secrets[l].ID[1]) }
	for _, l := range learners {
		counts[first(l)]++
	}
	bound, sum := 0, 0
	for sum < n {
		sum += int(counts[bound])
		bound++
	}
	var some []Learner
	for _, l := range learners {
		if first(l) < bound {
			some = append(some, l)
		}
	}
	slices.SortFunc(some, byID)
	return some[:n]
}

func span(from, to uint32) []uint32 {
	epochs := make([]uint32, 0, to-from+1)
	for e := from; e <= to; e++ {
		epochs = append(epochs, e)
	}
	return epochs
}

// Announce gives the next pending orders to an offset of `raw`, durably. It
// returns nil when nothing is pending, and what was announced before when the
// offset has an announcement already. The orders stay at hand, and the table is
// not written beyond them, until Settle.
func (p *Partition) Announce(ctx context.Context, rawOffset int64) (*Announcement, error) {
	if p.mode != Own {
		return nil, fmt.Errorf("announce in partition %d: the registry is open for reading", p.number)
	}
	if a := p.announced(rawOffset); a != nil {
		return a, nil
	}
	if !p.state.Unannounced() {
		return nil, nil
	}
	if _, err := p.Append(ctx, []Record{{Kind: KindAnnounce, RawOffset: rawOffset, Limit: MaxOrders}}); err != nil {
		return nil, err
	}
	return p.announced(rawOffset), nil
}

func (p *Partition) announced(rawOffset int64) *Announcement {
	for _, a := range p.announcements {
		if a.RawOffset == rawOffset {
			return a
		}
	}
	return nil
}

// Settle tells that everything below an offset of `raw` is in `answers`, so that
// announcements below it are not needed any more.
func (p *Partition) Settle(rawOffset int64) {
	p.announcements = slices.DeleteFunc(p.announcements, func(a *Announcement) bool { return a.RawOffset < rawOffset })
}
