package engine

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// members takes those out of consumer groups who are gone. The broker forgets a
// member that is silent for its session timeout, but not one whose connection
// ends while it waits for the reply to its join: that one is never given a
// timer, and the partitions that the others assign to it are read by no one. So
// whatever members send is noted, and who sends nothing for longer than a live
// member may is made to leave.
type members struct {
	cluster *kfake.Cluster
	leave   func(ctx context.Context, group, member string) error

	mu     sync.Mutex
	groups map[string]*watchedGroup
}

// watchedGroup is a consumer group as its members' requests tell of it.
type watchedGroup struct {
	// patience is the longest silence: a member that waits for the others to join
	// says nothing for the rebalance timeout, then nothing for the session timeout.
	patience time.Duration
	heard    map[string]time.Time // by member
}

func watchMembers(cluster *kfake.Cluster, address string) *members {
	client := &kafka.Client{Addr: kafka.TCP(address), Timeout: 10 * time.Second}
	m := &members{cluster: cluster, groups: make(map[string]*watchedGroup), leave: func(ctx context.Context, group, member string) error {
		response, err := client.LeaveGroup(ctx, &kafka.LeaveGroupRequest{GroupID: group, Members: []kafka.LeaveGroupRequestMember{{ID: member}}})
		if err == nil {
			err = response.Error
		}
		return err
	}}
	for _, key := range []kmsg.Key{kmsg.JoinGroup, kmsg.SyncGroup, kmsg.Heartbeat, kmsg.OffsetCommit} {
		cluster.ControlKey(int16(key), m.observe)
	}
	return m
}

// observe notes what a member sends; the broker handles it.
func (m *members) observe(request kmsg.Request) (kmsg.Response, error, bool) { //nolint:revive // the library wants this order
	m.mu.Lock()
	defer m.mu.Unlock()
	switch r := request.(type) {
	case *kmsg.JoinGroupRequest:
		g := m.groups[r.Group]
		if g == nil {
			g = &watchedGroup{heard: make(map[string]time.Time)}
			m.groups[r.Group] = g
		}
		g.patience = max(g.patience, time.Duration(r.SessionTimeoutMillis+max(0, r.RebalanceTimeoutMillis))*time.Millisecond)
		m.hear(r.Group, r.MemberID)
	case *kmsg.SyncGroupRequest:
		m.hear(r.Group, r.MemberID)
	case *kmsg.HeartbeatRequest:
		m.hear(r.Group, r.MemberID)
	case *kmsg.OffsetCommitRequest:
		m.hear(r.Group, r.MemberID)
	}
	return nil, nil, false
}

func (m *members) hear(group, member string) {
	if g := m.groups[group]; g != nil && member != "" {
		g.heard[member] = time.Now()
	}
}

// dismiss makes members leave who were silent for too long. A member that has
// not been heard yet, like one that waits in its first join, counts from here.
func (m *members) dismiss(ctx context.Context) error {
	m.mu.Lock()
	names := make([]string, 0, len(m.groups))
	for name := range m.groups {
		names = append(names, name)
	}
	m.mu.Unlock()
	for _, name := range names {
		for _, member := range m.silent(name, m.cluster.GroupInfo(name)) {
			if err := m.leave(ctx, name, member); err != nil {
				return fmt.Errorf("take a silent member out of group %s: %w", name, err)
			}
		}
	}
	return nil
}

func (m *members) silent(name string, info *kfake.GroupInfo) (silent []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	g, present := m.groups[name], make(map[string]bool)
	if info == nil { // the group was deleted
		delete(m.groups, name)
		return nil
	}
	for i := range info.Members {
		id := info.Members[i].MemberID
		present[id] = true
		switch last, known := g.heard[id]; {
		case !known:
			g.heard[id] = time.Now()
		case time.Since(last) > g.patience:
			silent = append(silent, id)
		}
	}
	for id := range g.heard {
		if !present[id] {
			delete(g.heard, id)
		}
	}
	return silent
}
