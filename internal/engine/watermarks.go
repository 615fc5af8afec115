package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// watermarks remember how far every partition has come.
//
// The embedded broker takes the next offset of a partition from the last message
// in its segments. When retention has emptied a partition, the next start would
// begin at offset 0 again: messages would get offsets that consumers have passed
// long ago, and be lost. It also forgets, when killed, where a partition began.
// So both are written down before anything is removed, and put back at the start.
type watermarks map[string]topicMarks // by topic

type topicMarks struct {
	ID         string          `json:"id"` // a topic made anew under its old name is another
	Partitions []partitionMark `json:"partitions"`
}

type partitionMark struct {
	Start int64 `json:"start"` // first offset that may be read
	Next  int64 `json:"next"`  // offset that the next message gets
}

// brokerTopics is what the broker keeps in topics.json, as far as needed.
type brokerTopics struct {
	Version int `json:"version"`
	Topics  []struct {
		Name       string            `json:"name"`
		ID         string            `json:"id"` // base64
		Partitions int               `json:"partitions"`
		Configs    map[string]string `json:"configs"`
	} `json:"topics"`
}

// brokerFormat is the version of the broker's files that this file knows.
const brokerFormat = 1

func readTopics(dir string) (brokerTopics, error) {
	var t brokerTopics
	if err := readJSON(filepath.Join(dir, "topics.json"), &t); err != nil {
		return t, err
	}
	if t.Version > brokerFormat {
		return t, fmt.Errorf("topics.json has version %d, known is %d", t.Version, brokerFormat)
	}
	return t, nil
}

// readJSON leaves into as it is when there is no file.
func readJSON(path string, into any) error {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", filepath.Base(path), err)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("decode %s: %w", filepath.Base(path), err)
	}
	return nil
}

// restore gives empty partitions their next offset back. It must run before the
// broker reads the directory.
func (w watermarks) restore(dir string) error {
	topics, err := readTopics(dir)
	if err != nil {
		return err
	}
	for _, t := range topics.Topics {
		marks := w[t.Name]
		if marks.ID != t.ID {
			continue
		}
		for p, m := range marks.Partitions {
			if m.Next == 0 || p >= t.Partitions {
				continue
			}
			at := partitionDir(dir, t.Name, int32(p))
			if err := restorePartition(at, m.Next); err != nil {
				return fmt.Errorf("restore next offset of %s/%d: %w", t.Name, p, err)
			}
		}
	}
	return nil
}

// restorePartition leaves a partition alone that holds a message: what it holds
// is newer than the mark. Else it writes the snapshot of a partition whose only
// segment begins at next and is empty.
func restorePartition(dir string, next int64) error {
	segments, err := filepath.Glob(filepath.Join(dir, "*.dat"))
	if err != nil {
		return fmt.Errorf("list segments: %w", err)
	}
	for _, s := range segments {
		holds, err := holdsBatch(s)
		if err != nil || holds {
			return err
		}
	}
	for _, s := range segments {
		// Nothing in them was acknowledged.
		index := strings.TrimSuffix(s, ".dat") + ".idx"
		if err := errors.Join(os.Remove(s), removeIfThere(index)); err != nil {
			return fmt.Errorf("remove empty segment: %w", err)
		}
	}
	snapshot, err := json.Marshal(map[string]any{
		"version": brokerFormat, "high_watermark": next, "last_stable_offset": next, "log_start_offset": next,
		"created_at": time.Now(), "segments": []map[string]any{{"base_offset": next, "size": 0}},
	})
	if err != nil {
		return fmt.Errorf("encode snapshot: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make partition directory: %w", err)
	}
	if err := writeFile(filepath.Join(dir, fmt.Sprint(next)+".dat"), nil); err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, "snapshot.json"), snapshot)
}

func removeIfThere(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// holdsBatch tells whether a segment begins with a whole record batch.
func holdsBatch(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, fmt.Errorf("open segment: %w", err)
	}
	defer closeQuietly(f) // only read from
	info, err := f.Stat()
	if err != nil {
		return false, fmt.Errorf("size of segment: %w", err)
	}
	if info.Size() < batchSmallest {
		return false, nil
	}
	var start [batchSmallest]byte
	if _, err := f.ReadAt(start[:], 0); err != nil {
		return false, fmt.Errorf("read segment: %w", err)
	}
	content := make([]byte, min(info.Size(), batchSize(start[:])))
	if _, err := f.ReadAt(content, 0); err != nil {
		return false, fmt.Errorf("read segment: %w", err)
	}
	_, whole := wholeBatch(content)
	return whole, nil
}
