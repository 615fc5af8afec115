package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/leerstroom/leerstroom/query"
	"github.com/leerstroom/leerstroom/store"
	"github.com/leerstroom/leerstroom/transform"
	"github.com/leerstroom/leerstroom/transform/filter"
)

// restoring is what the states of a recovered system took when they were read once
// more, by nothing else and one partition after the other.
type restoring struct {
	read, states, model time.Duration
	clickhouse          float64 // processor seconds of reading in ClickHouse
	learners, rows      int
}

// restoreAlone takes a recovery apart: it reads all partitions of the running
// system with the store, and fills the memory of the stage and of the query service.
// Both keep what they have, as in a system, so that memory is as cold as there.
func restoreAlone(ctx context.Context, process *Process) (took restoring, err error) {
	connection, err := process.ClickHouse()
	if err != nil {
		return took, err
	}
	reader, err := store.Open(ctx, store.Config{Addresses: connection.Addresses, Database: connection.Database, User: connection.User, Password: connection.Password})
	if err != nil {
		return took, err
	}
	defer func() { err = errors.Join(err, reader.Close(context.WithoutCancel(ctx))) }()
	parameters, catalog := filter.DefaultParameters(), transform.NewCatalog()
	model := query.NewReadModel(query.Config{Partitions: process.Partitions})
	partitions := make([]*transform.Partition, process.Partitions)
	before, told := processorTimeOf(process.ID())
	for i := range partitions {
		began := time.Now()
		restored, err := reader.Restore(ctx, i)
		if err != nil {
			return took, err
		}
		read := time.Now()
		model.ApplySkills(&restored.Skills)
		applied := time.Now()
		partitions[i] = transform.NewPartition(parameters, catalog)
		if err := partitions[i].Restore(&restored); err != nil {
			return took, fmt.Errorf("restore partition %d: %w", i, err)
		}
		took.read += read.Sub(began)
		took.model += applied.Sub(read)
		took.states += time.Since(applied)
		took.learners += partitions[i].Learners()
		took.rows += restored.Skills.Len()
	}
	if after, still := processorTimeOf(process.ID()); told && still {
		took.clickhouse = after.clickhouse - after.merges - (before.clickhouse - before.merges)
	}
	return took, nil
}

// reportRestoring adds the figures of that.
func (r *runner) reportRestoring(took restoring) {
	r.results.add("recovery_reading_alone_seconds", took.read.Seconds(), "s",
		fmt.Sprintf("the same states, %d rows of skills and what belongs to them, read once more from the running system by the store alone, one partition after the other", took.rows))
	if took.clickhouse > 0 {
		r.results.add("recovery_reading_alone_processor_clickhouse_seconds", took.clickhouse, "s", "processor time of ClickHouse for that, without merges")
	}
	r.results.add("recovery_states_alone_seconds", took.states.Seconds(), "s", "filling the memory of the stage with them, in one thread")
	r.results.add("recovery_read_model_alone_seconds", took.model.Seconds(), "s", "filling the memory of the query service with them, in one thread")
}
