package store

import "time"

// batch is what is written together: rows of the archive, states, and the
// checkpoints that say that both are complete up to a position. Its buffers are
// used again, unless they have grown beyond what a batch should hold.
type batch struct {
	answers     *answersBlock
	testResults *testResultsBlock
	ledger      *ledgerBlock
	sums        *sumsBlock
	norms       *normsBlock
	adoptions   *adoptionsBlock
	skills      *skillsBlock
	progress    *progressBlock
	waiting     []func(error) // Durable of the checkpoints whose progress is in this batch

	epoch    uint64        // of the writer when the batch was begun
	begun    time.Time     // zero while it is empty
	archived chan struct{} // closed when its archive rows are in or given up
	failure  error         // why they were given up; read after archived
}

func newBatch(database string) *batch {
	return &batch{
		answers: newAnswersBlock(database), testResults: newTestResultsBlock(database), ledger: newLedgerBlock(database),
		sums: newSumsBlock(database), norms: newNormsBlock(database), adoptions: newAdoptionsBlock(database),
		skills: newSkillsBlock(database), progress: newProgressBlock(database),
	}
}

func (b *batch) blocks() [8]*block {
	return [...]*block{&b.answers.block, &b.testResults.block, &b.ledger.block, &b.sums.block, &b.norms.block,
		&b.adoptions.block, &b.skills.block, &b.progress.block}
}

// largest returns the number of rows of the largest block.
func (b *batch) largest() int {
	rows := 0
	for _, block := range b.blocks() {
		rows = max(rows, block.rows())
	}
	return rows
}

// recycle empties the batch. A batch with more rows than keep is dropped for a
// new one, so that one burst does not hold memory for ever.
func (b *batch) recycle(database string, keep int) *batch {
	if b.largest() > keep {
		return newBatch(database)
	}
	for _, block := range b.blocks() {
		block.reset()
	}
	clear(b.waiting)
	b.waiting = b.waiting[:0]
	b.begun, b.archived, b.failure = time.Time{}, nil, nil
	return b
}
