//go:build fault

package fault_test

import (
	"flag"
	"fmt"
	"testing"
	"time"
)

var campaignsFlag = flag.Int("campaigns", 40, "campaigns of TestCampaigns, with seeds that follow each other")

// TestCampaigns runs many campaigns and sums them up. One that fails does not
// stop the others.
func TestCampaigns(t *testing.T) {
	binary, began := build(t), time.Now()
	rounds, events, again, exits, failed, struck := 0, 0, 0, 0, 0, make(map[string]int)
	for i := range uint64(*campaignsFlag) {
		seed := *seedFlag + i
		passed := t.Run(fmt.Sprint(seed), func(t *testing.T) {
			c := campaign(t, binary, seed, *roundsFlag)
			rounds, events, again, exits = rounds+*roundsFlag, events+c.Events, again+c.Again, exits+c.Exits
			for kind, n := range c.Struck {
				struck[kind] += n
			}
		})
		if !passed {
			failed++
		}
		t.Logf("%d rounds in whole campaigns, %d events, %d requests repeated, %d processes ended by themselves, %d campaigns failed, %.1f s a round; struck: %v",
			rounds, events, again, exits, failed, time.Since(began).Seconds()/float64(max(rounds, 1)), struck)
	}
}
