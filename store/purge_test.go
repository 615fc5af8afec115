package store_test

import (
	"errors"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
	"github.com/leerstroom/leerstroom/transform"
)

// TestLostDeletionIsOrderedAgain: ClickHouse forgets the mutation that deletes the
// rows of a learner who has left, as it does when it could not write it and ends.
func TestLostDeletionIsOrderedAgain(t *testing.T) {
	t.Parallel()
	s := openStore(t, quick)
	ctx := t.Context()
	c := newWorkload(6, 1).message(0, 20)
	said := &transform.Evidence{Gradient: make([]int32, 20), Information: make([]uint16, 20), Replayed: make([]bool, 20)}
	if err := s.Archive(ctx, 0, c, nil, said); err != nil {
		t.Fatal(err)
	}
	left := transform.LearnerName{School: c.School.At(3), Learner: c.Learner.At(3)}
	orders := &transform.Amendment{Order: answer.At(1, 0), RawOffset: 1, Commands: 1, Departures: []transform.Departure{{LearnerName: left}}}
	orders.Position = answer.At(1, 1)
	amendTwice(t, s, orders)
	s.execute(t, "SYSTEM STOP MERGES "+s.table("answers"))
	purged := make(chan error, 1)
	go func() { purged <- s.Purge(ctx) }()
	ours := "database = '" + s.connection.Database + "' AND table = 'answers'"
	enginetest.Eventually(t, time.Minute, "the deletion to be ordered", func() error {
		if s.number(t, "SELECT toInt64(count()) FROM system.mutations WHERE "+ours) == 0 {
			return errors.New("no mutation")
		}
		return nil
	})
	s.execute(t, "KILL MUTATION WHERE "+ours+" SYNC")
	s.execute(t, "SYSTEM START MERGES "+s.table("answers"))
	if err := <-purged; err != nil {
		t.Fatal(err)
	}
	s.want(t, "answers", "SELECT count() FROM {t} WHERE learner = unhex('"+left.Learner.String()+"')", 0)
	s.want(t, "departed", "SELECT count() FROM {t} FINAL WHERE purged = 2", 1)
}
