package store

import (
	"context"
	"fmt"
	"time"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"

	"github.com/leerstroom/leerstroom/internal/deadletter"
	"github.com/leerstroom/leerstroom/internal/stream"
)

// DeadLetterHandler returns the handler that enters the letters of a partition
// of the topic of dead letters in the index, for stream.ConsumerConfig. A letter
// is entered before its offset is committed; entering it again changes nothing.
func (s *Store) DeadLetterHandler(partition int) stream.Handler {
	return &letterHandler{store: s, partition: partition}
}

type letterHandler struct {
	store      *Store
	partition  int
	assignment *stream.Assignment
}

// Start implements stream.Handler.
func (h *letterHandler) Start(_ context.Context, a *stream.Assignment) (int64, error) {
	h.assignment = a
	return max(a.Committed, 0), nil
}

// Handle implements stream.Handler.
func (h *letterHandler) Handle(ctx context.Context, messages []stream.Message) error {
	letters := make([]deadletter.Entry, 0, len(messages))
	for i := range messages {
		letter, err := h.read(&messages[i])
		if err != nil {
			return fmt.Errorf("index dead letters of partition %d: %w", h.partition, err)
		}
		letters = append(letters, letter)
	}
	if err := h.store.IndexDeadLetters(ctx, letters); err != nil {
		return err
	}
	h.assignment.Commit(messages[len(messages)-1].Offset + 1)
	return nil
}

// read takes the headers of a letter. A header that is missing is left empty:
// also such a letter has to be found.
func (h *letterHandler) read(m *stream.Message) (deadletter.Entry, error) {
	letter := deadletter.Entry{LetterPartition: h.partition, LetterOffset: m.Offset, Partition: -1, Offset: -1, ReplayOffset: -1, Bytes: len(m.Value),
		Topic: string(m.Header(deadletter.HeaderTopic)), Stage: string(m.Header(deadletter.HeaderStage)), Reason: string(m.Header(deadletter.HeaderReason))}
	if m.Header(deadletter.HeaderPartition) != nil {
		partition, err := m.Int64(deadletter.HeaderPartition)
		if err != nil {
			return letter, err
		}
		letter.Partition = int(partition)
	}
	if m.Header(deadletter.HeaderOffset) != nil {
		offset, err := m.Int64(deadletter.HeaderOffset)
		if err != nil {
			return letter, err
		}
		letter.Offset = offset
	}
	return letter, nil
}

// Idle implements stream.Handler.
func (h *letterHandler) Idle(context.Context) error { return nil }

// Stop implements stream.Handler.
func (h *letterHandler) Stop() {}

// IndexDeadLetters implements deadletter.Index. Of the entries of a letter, the
// one that has come furthest stays.
func (s *Store) IndexDeadLetters(ctx context.Context, letters []deadletter.Entry) error {
	if len(letters) == 0 {
		return nil
	}
	var letterPartition proto.ColUInt16
	var letterOffset proto.ColUInt64
	var partition proto.ColInt32
	var offset proto.ColInt64
	var bytes proto.ColUInt32
	var topic, stage, reason wordColumn
	state := enumColumn{is: typeLetter}
	var replay proto.ColInt64
	var written millisColumn
	now := time.Now()
	topic.init()
	stage.init()
	reason.init()
	for i := range letters {
		l := &letters[i]
		letterPartition = append(letterPartition, uint16(l.LetterPartition))
		letterOffset = append(letterOffset, uint64(l.LetterOffset))
		partition = append(partition, int32(l.Partition))
		offset = append(offset, l.Offset)
		bytes = append(bytes, uint32(l.Bytes))
		topic.appendWord(l.Topic)
		stage.appendWord(l.Stage)
		reason.appendWord(l.Reason)
		state.ColUInt8 = append(state.ColUInt8, uint8(l.State))
		replay = append(replay, l.ReplayOffset)
		entered := l.WrittenAt
		if entered.IsZero() {
			entered = now
		}
		written.ColInt64 = append(written.ColInt64, entered.UnixMilli())
	}
	b := newBlock(s.config.Database, "dead_letters", column("letter_partition", &letterPartition), column("letter_offset", &letterOffset),
		column("topic", &topic), column("partition", &partition), column("offset", &offset), column("stage", &stage),
		column("reason", &reason), column("bytes", &bytes), column("state", &state), column("replay_offset", &replay), column("written_at", &written))
	if err := s.insert(ctx, &b); err != nil {
		return fmt.Errorf("index %d dead letters: %w", len(letters), err)
	}
	return nil
}

// ListDeadLetters implements deadletter.Index: it calls see for every letter, the
// oldest message first, until it returns an error. A message that was given up twice because of a
// crash has two letters.
func (s *Store) ListDeadLetters(ctx context.Context, see func(deadletter.Entry) error) error {
	var letters []deadletter.Entry
	err := s.read(ctx, func() ch.Query {
		letters = nil
		var letterPartition proto.ColUInt16
		var letterOffset proto.ColUInt64
		var partition proto.ColInt32
		var offset, written, replay proto.ColInt64
		var state proto.ColUInt8
		var bytes proto.ColUInt32
		topic, stage, reason := newWordResult(), newWordResult(), newWordResult()
		return ch.Query{
			Body: s.fill("SELECT letter_partition, letter_offset, topic, partition, offset, stage, reason, bytes, toUInt8(state) AS state_number, replay_offset, toUnixTimestamp64Milli(written_at) AS written" +
				" FROM {db}.dead_letters FINAL ORDER BY topic, partition, offset, letter_partition, letter_offset"),
			Result: proto.Results{{Name: "letter_partition", Data: &letterPartition}, {Name: "letter_offset", Data: &letterOffset},
				{Name: "topic", Data: topic}, {Name: "partition", Data: &partition}, {Name: "offset", Data: &offset}, {Name: "stage", Data: stage},
				{Name: "reason", Data: reason}, {Name: "bytes", Data: &bytes}, {Name: "state_number", Data: &state}, {Name: "replay_offset", Data: &replay}, {Name: "written", Data: &written}},
			OnResult: func(_ context.Context, block proto.Block) error {
				if block.Rows == 0 {
					return nil
				}
				topics, stages, reasons := topic.appendTo(nil), stage.appendTo(nil), reason.appendTo(nil)
				for i := range block.Rows {
					letters = append(letters, deadletter.Entry{LetterPartition: int(letterPartition[i]), LetterOffset: int64(letterOffset[i]), Topic: topics[i],
						Partition: int(partition[i]), Offset: offset[i], Stage: stages[i], Reason: reasons[i], Bytes: int(bytes[i]), WrittenAt: time.UnixMilli(written[i]),
						State: deadletter.State(state[i]), ReplayOffset: replay[i]})
				}
				return nil
			},
		}
	})
	if err != nil {
		return fmt.Errorf("list dead letters: %w", err)
	}
	for _, l := range letters {
		if err := see(l); err != nil {
			return err
		}
	}
	return nil
}
