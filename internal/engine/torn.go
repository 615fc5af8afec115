package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
)

// bootFile names the run of the system that last wrote to the broker's directory.
const bootFile = "kafka-boot"

// mendTorn repairs what a loss of power may have torn. The system writes files in
// any order, so a segment can end early although the next one holds messages;
// nothing after the gap was acknowledged or fetched, and what is not synced can
// be made again. Readers expect no gap, so the log ends there.
//
// Death of the process tears nothing. So the segments are read only when the
// system was started since they were written.
func mendTorn(dataDir string, logger *slog.Logger) error {
	remembered, current := filepath.Join(dataDir, bootFile), bootID()
	last, err := os.ReadFile(remembered)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read %s: %w", bootFile, err)
	}
	if current != "" && string(last) == current {
		return nil
	}
	partitions, err := filepath.Glob(filepath.Join(dataDir, kafkaDir, "partitions", "*"))
	if err != nil {
		return fmt.Errorf("list partitions: %w", err)
	}
	for _, p := range partitions {
		if err := cutAfterGap(p, logger); err != nil {
			return fmt.Errorf("mend %s: %w", filepath.Base(p), err)
		}
	}
	return writeFile(remembered, []byte(current))
}

// bootID names the run of the system, empty when that is unknown.
func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id") // only Linux has it
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}

// cutAfterGap removes the segments of a partition that don't follow the one
// before. What is torn within a segment the broker cuts itself.
func cutAfterGap(dir string, logger *slog.Logger) error {
	bases, err := segmentBases(dir)
	if err != nil {
		return err
	}
	next, any := int64(0), false // where the last segment that holds anything ended
	for i, base := range bases {
		content, err := os.ReadFile(segmentPath(dir, base))
		if err != nil {
			return fmt.Errorf("read segment: %w", err)
		}
		if len(content) == 0 {
			continue // the broker passes over it
		}
		if any && base != next {
			logger.Error("embedded kafka: the log has a gap since power was lost; it ends there now",
				"partition", filepath.Base(dir), "offset", next, "segments_removed", len(bases)-i)
			return removeSegments(dir, bases[i:])
		}
		next, any = endOfSegment(content, base), true
	}
	return nil
}

func removeSegments(dir string, bases []int64) error {
	for i := len(bases) - 1; i >= 0; i-- { // so that a crash meanwhile leaves the gap to be found
		segment := segmentPath(dir, bases[i])
		index := strings.TrimSuffix(segment, segmentSuffix) + indexSuffix
		if err := errors.Join(os.Remove(segment), removeIfThere(index)); err != nil {
			return fmt.Errorf("remove segment: %w", err)
		}
	}
	return nil
}

// endOfSegment returns the offset after the last whole record batch.
func endOfSegment(content []byte, base int64) int64 {
	next := base
	for {
		size, whole := wholeBatch(content)
		if !whole {
			return next
		}
		next = int64(binary.BigEndian.Uint64(content)) + int64(binary.BigEndian.Uint32(content[batchLastDelta:])) + 1
		content = content[size:]
	}
}

// Places in a record batch: offset (8 bytes), length of the rest (4), epoch (4),
// magic (1), CRC-32C of the rest (4), attributes (2), last offset minus first (4).
const (
	batchLength    = 8
	batchChecksum  = 17
	batchChecked   = 21
	batchLastDelta = 23
	batchSmallest  = 27
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// wholeBatch returns the size of the record batch that the content begins with,
// and whether all of it is there and right.
func wholeBatch(content []byte) (size int, whole bool) {
	if len(content) < batchSmallest {
		return 0, false
	}
	if s := batchSize(content); s < batchSmallest || s > int64(len(content)) {
		return 0, false
	}
	size = int(batchSize(content))
	return size, crc32.Checksum(content[batchChecked:size], castagnoli) == binary.BigEndian.Uint32(content[batchChecksum:])
}

func batchSize(content []byte) int64 {
	return int64(binary.BigEndian.Uint32(content[batchLength:])) + batchLength + 4
}
