package engine_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// segments returns the segment files of partition 0 of a topic, with their
// content.
func (e *embedded) segments(topic string) map[string]string {
	e.t.Helper()
	paths, err := filepath.Glob(filepath.Join(e.dir, "*", "partitions", topic+"-0", "*.dat"))
	if err != nil || len(paths) == 0 {
		e.t.Fatalf("%d segments, %v", len(paths), err)
	}
	files := make(map[string]string)
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			e.t.Fatal(err)
		}
		files[path] = string(content)
	}
	return files
}

// holds tells whether a value is in the bytes of a topic's files.
func (e *embedded) holds(topic, value string) bool {
	for _, content := range e.segments(topic) {
		if strings.Contains(content, value) {
			return true
		}
	}
	return false
}

// TestDeletedBytesLeaveTheDisk: the bytes of deleted messages are in no file after
// the next start, whatever way the broker ended; what was not deleted is served as
// before.
func TestDeletedBytesLeaveTheDisk(t *testing.T) {
	t.Parallel()
	for _, kill := range []bool{false, true} {
		t.Run("kill="+strconv.FormatBool(kill), func(t *testing.T) {
			t.Parallel()
			broker := startEmbedded(t)
			client := broker.client()
			makeTopic(t, client, "shed", 1, map[string]string{"segment.bytes": "300"})
			var values []string
			for i := range 12 {
				value := fmt.Sprintf("canary-%02d", i)
				if _, err := produce(t, client, "shed", 0, value); err != nil {
					t.Fatal(err)
				}
				values = append(values, value)
			}
			for _, start := range []int{1, 5, 6, 11} {
				broker.deleteBefore("shed", int64(start))
				if start == 1 && !broker.holds("shed", values[0]) {
					t.Error("the broker takes bytes off the disk by itself: this test shows nothing")
				}
				broker.again(kill)
				client = broker.client()
				if first, next := bounds(t, client, "shed", 0); first != int64(start) || next != int64(len(values)) {
					t.Fatalf("offsets = %d to %d, want %d to %d", first, next, start, len(values))
				}
				if got, _ := fetch(t, client, "shed", 0, int64(start)); !slices.Equal(got, values[start:]) {
					t.Errorf("values from %d on = %q, want %q", start, got, values[start:])
				}
				for i, value := range values {
					if broker.holds("shed", value) != (i >= start) {
						t.Errorf("after a deletion below %d, message %d is on the disk: %v", start, i, i < start)
					}
				}
			}
			if offset, err := produce(t, client, "shed", 0, "later"); err != nil || offset != int64(len(values)) {
				t.Errorf("offset = %d, %v, want %d", offset, err, len(values))
			}
			broker.again(kill)
			if got, _ := fetch(t, broker.client(), "shed", 0, 11); !slices.Equal(got, []string{values[11], "later"}) {
				t.Errorf("values = %q, want the last and the later one", got)
			}
		})
	}
}

// TestShedIsFinishedAfterACrash: one that dies when the new segment is there and
// the old one not gone leaves both. The next start removes the old one.
func TestShedIsFinishedAfterACrash(t *testing.T) {
	t.Parallel()
	broker := startEmbedded(t)
	client := broker.client()
	makeTopic(t, client, "cut", 1, map[string]string{"segment.bytes": "200"})
	values := []string{"canary", "b", "c", "d", "e", "f", "g"}
	for _, v := range values {
		if _, err := produce(t, client, "cut", 0, v); err != nil {
			t.Fatal(err)
		}
	}
	first, content := "", ""
	for path, c := range broker.segments("cut") {
		if strings.Contains(c, "canary") {
			first, content = path, c
		}
	}
	if len(broker.segments("cut")) < 3 {
		t.Fatal("want at least three segments")
	}
	broker.deleteBefore("cut", 1)
	broker.again(true) // sheds
	if err := broker.process.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(first); !os.IsNotExist(err) {
		t.Fatalf("the old segment is still there (%v)", err)
	}
	if err := os.WriteFile(first, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	// Power was lost, too: the broker's files are looked through for gaps.
	if err := os.Remove(filepath.Join(broker.dir, "kafka-boot")); err != nil {
		t.Fatal(err)
	}
	broker.start()
	client = broker.client()
	if first, next := bounds(t, client, "cut", 0); first != 1 || next != int64(len(values)) {
		t.Errorf("offsets = %d to %d, want 1 to %d", first, next, len(values))
	}
	if got, _ := fetch(t, client, "cut", 0, 1); !slices.Equal(got, values[1:]) {
		t.Errorf("values = %q, want %q", got, values[1:])
	}
	if broker.holds("cut", "canary") {
		t.Error("the deleted message is on the disk")
	}
}
