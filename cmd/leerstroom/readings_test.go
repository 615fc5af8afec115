package main

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestReadings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r readings
		if r.areUnderWay() {
			t.Error("under way before any began")
		}
		ended := make(chan bool, 1)
		go func() { ended <- r.await(t.Context()) }()
		time.Sleep(time.Hour)
		synctest.Wait()
		select {
		case <-ended:
			t.Fatal("waiting ended before anything was read")
		default:
		}
		first, second := r.begin(), r.begin()
		time.Sleep(time.Hour)
		first()
		time.Sleep(readingPause)
		if !r.areUnderWay() {
			t.Error("one of two has ended: not under way")
		}
		second()
		time.Sleep(readingPause / 2)
		third := r.begin()
		third()
		last := time.Now()
		if !<-ended {
			t.Error("waiting ended without a reading")
		}
		if waited := time.Since(last); waited < readingPause || waited > readingPause+2*readingInterval {
			t.Errorf("waiting ended %v after the last reading, want %v", waited, readingPause)
		}
		if r.areUnderWay() {
			t.Error("under way although none is")
		}
	})
}

func TestReadingsThatNeverBegin(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if new(readings).await(ctx) {
		t.Error("waiting says that something was read")
	}
}
