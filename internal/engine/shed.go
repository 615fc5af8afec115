package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// shed takes deleted messages off the disk. The broker removes whole segments; the
// messages at the beginning of one that still holds something can't be fetched any
// more, but their bytes stay. Before the broker opens its files, such a segment is
// written anew without them. It must run before the broker reads the directory, and
// before mendTorn, to which two segments of the same messages look like a gap.
func (w watermarks) shed(dir string) error {
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
			if p >= t.Partitions {
				continue
			}
			if err := shedPartition(partitionDir(dir, t.Name, int32(p)), m.Start); err != nil {
				return fmt.Errorf("take deleted messages of %s/%d off the disk: %w", t.Name, p, err)
			}
		}
	}
	return nil
}

// shedPartition keeps the batches that hold an offset from start on. Only the
// first segment can hold others. The new segment is whole before the old one goes;
// when a crash leaves both, the next run removes the old one.
func shedPartition(dir string, start int64) error {
	bases, err := segmentBases(dir)
	if err != nil || len(bases) == 0 || start <= bases[0] {
		return err
	}
	content, err := os.ReadFile(segmentPath(dir, bases[0]))
	if err != nil {
		return fmt.Errorf("read segment: %w", err)
	}
	if len(bases) > 1 && endOfSegment(content, bases[0]) > bases[1] {
		return removeShed(dir, bases[0])
	}
	skip, batches := deletedBytes(content, start)
	if batches == 0 || skip == len(content) { // the broker removes what holds nothing else
		return nil
	}
	first := int64(binary.BigEndian.Uint64(content[skip:]))
	index, err := os.ReadFile(indexPath(dir, bases[0]))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read index: %w", err)
	}
	// The snapshot names the old segment; without it the broker reads the segments.
	if err := removeIfThere(filepath.Join(dir, "snapshot.json")); err != nil {
		return fmt.Errorf("remove snapshot: %w", err)
	}
	if err := writeFile(indexPath(dir, first), index[min(len(index), batches*indexEntry):]); err != nil {
		return err
	}
	if err := writeFile(segmentPath(dir, first), content[skip:]); err != nil {
		return err
	}
	return removeShed(dir, bases[0])
}

// indexEntry is the size of what an index holds of a batch.
const indexEntry = 15

func indexPath(dir string, base int64) string {
	return strings.TrimSuffix(segmentPath(dir, base), segmentSuffix) + indexSuffix
}

// deletedBytes returns the size and number of the whole batches that a segment
// begins with and that end before an offset.
func deletedBytes(content []byte, start int64) (size, batches int) {
	for {
		n, whole := wholeBatch(content[size:])
		if !whole || endOfSegment(content[size:size+n], 0) > start {
			return size, batches
		}
		size += n
		batches++
	}
}

// removeShed removes a segment that another has replaced.
func removeShed(dir string, base int64) error {
	directory, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync partition: %w", err)
	}
	defer closeQuietly(directory)            // only read from
	if err := directory.Sync(); err != nil { // the new segment has its name before the old one loses it
		return fmt.Errorf("sync partition: %w", err)
	}
	return removeSegments(dir, []int64{base})
}
