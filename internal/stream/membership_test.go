package stream_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leerstroom/leerstroom/internal/engine/enginetest"
	"github.com/leerstroom/leerstroom/internal/stream"
)

// longSession is how long the tests would wait for a dead member without its file.
const longSession = 2 * time.Minute

// member is what a process needs to know to join a group.
type member struct {
	Brokers                   []string
	Group, Topic, Members     string
	SessionTimeoutNanoseconds time.Duration
}

// joining reports a started partition, and does no more.
type joining struct{ started func() }

func (h joining) Start(context.Context, *stream.Assignment) (int64, error) {
	h.started()
	return 0, nil
}
func (joining) Handle(context.Context, []stream.Message) error { return nil }
func (joining) Idle(context.Context) error                     { return nil }
func (joining) Stop()                                          {}

// join runs a consumer until stop; started counts the partitions that it was given.
func (m *member) join(t *testing.T, started func()) (stop func()) {
	t.Helper()
	consumer, err := stream.NewConsumer(newClient(t, m.Brokers), stream.ConsumerConfig{Group: m.Group, Topic: m.Topic,
		SessionTimeout: m.SessionTimeoutNanoseconds, Members: m.Members, NewHandler: func(int) stream.Handler { return joining{started} }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- consumer.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func (m *member) files(t *testing.T) []os.DirEntry {
	t.Helper()
	files, err := os.ReadDir(m.Members)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// memberVariable makes this test binary a member that waits to be killed.
const memberVariable = "LEERSTROOM_TEST_MEMBER"

// TestWhoDiedLeavesTheGroup kills a process that is in a group. The next one gets
// its partition long before the session has timed out.
func TestWhoDiedLeavesTheGroup(t *testing.T) {
	t.Parallel()
	const joined = "joined\n"
	if text := os.Getenv(memberVariable); text != "" {
		var m member
		if err := json.Unmarshal([]byte(text), &m); err != nil {
			t.Fatal(err)
		}
		m.join(t, func() { fmt.Print(joined) })
		_, err := io.Copy(io.Discard, os.Stdin) // until it is killed, or its parent ends
		t.Fatalf("the parent has ended: %v", err)
	}
	brokers := enginetest.Kafka(t)
	m := member{Brokers: brokers, Group: enginetest.UniqueName("group"), Topic: enginetest.Topic(t, brokers, "died", 1),
		Members: filepath.Join(t.TempDir(), "members"), SessionTimeoutNanoseconds: longSession}
	killMember(t, &m, joined)
	if n := len(m.files(t)); n != 1 {
		t.Fatalf("%d files of members are left, want that of the dead", n)
	}
	started := make(chan struct{}, 1)
	began := time.Now()
	stop := m.join(t, func() { started <- struct{}{} })
	select {
	case <-started:
	case <-time.After(longSession / 2):
		t.Error("the partition of the dead was not given to the next member")
	}
	t.Logf("joined after %v", time.Since(began))
	stop()
	if n := len(m.files(t)); n != 1 {
		t.Errorf("%d files of members, want the newest", n)
	}
}

// killMember starts this test as another process, and kills it when it has joined.
func killMember(t *testing.T, m *member, joined string) {
	t.Helper()
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(t.Context(), executable, "-test.run=^"+t.Name()+"$")
	command.Env = append(os.Environ(), memberVariable+"="+string(text))
	command.Stderr = os.Stderr
	input, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer input.Close()
	output, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	said := make([]byte, len(joined))
	if _, err := io.ReadFull(output, said); err != nil || string(said) != joined {
		t.Errorf("the member said %q, %v", said, err)
	}
	if err := command.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := command.Wait(); err == nil {
		t.Error("the member was not killed")
	}
}

// TestWhoLivesStaysInTheGroup: a second process on the same directory takes nobody
// out who is alive.
func TestWhoLivesStaysInTheGroup(t *testing.T) {
	t.Parallel()
	brokers := enginetest.Kafka(t)
	m := member{Brokers: brokers, Group: enginetest.UniqueName("group"), Topic: enginetest.Topic(t, brokers, "lives", 2),
		Members: filepath.Join(t.TempDir(), "members"), SessionTimeoutNanoseconds: 10 * time.Second}
	var first, second atomic.Int64
	stopFirst := m.join(t, func() { first.Add(1) })
	defer stopFirst()
	enginetest.Eventually(t, time.Minute, "the first member to have both partitions", func() error {
		if n := first.Load(); n < 2 {
			return fmt.Errorf("it has %d", n)
		}
		return nil
	})
	before := m.files(t)
	if err := os.WriteFile(filepath.Join(m.Members, m.Group+".other.17"), nil, 0o600); err != nil { // of a group of another name
		t.Fatal(err)
	}
	stopSecond := m.join(t, func() { second.Add(1) })
	enginetest.Eventually(t, time.Minute, "each member to have a partition", func() error {
		if first.Load() < 3 || second.Load() < 1 {
			return fmt.Errorf("started %d and %d", first.Load(), second.Load())
		}
		return nil
	})
	if n := len(m.files(t)); n != len(before)+2 {
		t.Errorf("%d files, want those of two members and of another group", n)
	}
	if _, err := os.Stat(filepath.Join(m.Members, before[0].Name())); err != nil {
		t.Errorf("the file of the living: %v", err)
	}
	stopSecond()
}
