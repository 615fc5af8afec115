package transform

import (
	"context"
	"errors"

	"github.com/leerstroom/leerstroom/internal/answer"
)

// A message that corrects answers or test results, that orders what becomes of
// learners, or that orders to switch to a rebuild, changes what is durable
// already: it is an amendment. All before it is made
// durable first; what it does is computed from the archive as it was before it,
// and written before the next message is looked at.

// LearnerName names a learner of a school in the archive.
type LearnerName struct {
	School  string
	Learner answer.Token
}

// EventName names an answer or a test result in its archive, whoever gave it and
// whenever.
type EventName struct {
	School string
	ID     answer.EventID
}

// Found is a row of the archive under one primary key.
type Found struct {
	Lookup
	Position  answer.Position
	Revision  uint32
	Corrected answer.Position // of the correction that the contents come from, 0 = as delivered
	Changed   answer.Position // of the message that wrote the row anew, 0 = as delivered
	Gone      bool            // the row has left this key
}

// ArchivedAnswers are rows of the archive with what they said, in the order of
// their positions. EventID, KeyEpoch and RawOffset of the columns are empty.
type ArchivedAnswers struct {
	answer.Columns
	Position []answer.Position
	Epoch    []uint32 // of the key that made the token
	Evidence
}

// Replacement puts a row of a message in the place of an earlier one.
type Replacement struct {
	Row      int
	Position answer.Position // of the row that is replaced, which stays
	Fresh    bool            // that row came with the same message
}

// Left is a row that leaves its primary key for another.
type Left struct {
	Lookup
	Position answer.Position
}

// Joining is a token whose rows come to stand under a token, or stay there.
type Joining struct {
	LearnerName
	Into answer.Token
}

// Double is a row of an archive that can't stand where it belongs, because a row
// of the same event stands at that primary key: it counts as a repeat.
type Double struct {
	Position answer.Position
	ID       answer.EventID
	Into     answer.Token // the learner under whom both would stand
}

// Rescored is what an archived answer says since its learner was learnt anew.
type Rescored struct {
	Position    answer.Position
	Gradient    int32
	Information uint16
}

// Departure says where everything under a token goes; Into is zero when it goes
// nowhere.
type Departure struct {
	LearnerName
	Into     answer.Token
	KeyEpoch uint32 // that made Into
}

// Amendment is what a message changes that has corrections or orders in it. The
// states in it are those after the message; Durable is not used. Following it
// again, or a part of it, changes nothing.
type Amendment struct {
	Checkpoint
	Order     answer.Position // of the first row of the message: version of what is written anew
	RawOffset int64

	// Rows of the message, when they are answers or test results: those not to
	// skip are new.
	Answers     *answer.Columns
	TestResults *answer.TestResults
	Skip        []bool
	Said        *Evidence // of answers
	Replaced    []Replacement

	// Rebuild is the number of the rebuild that the message orders to switch to, 0
	// when it is another message.
	Rebuild uint64

	// Orders of the message, when it is one of commands.
	Commands   int
	Departures []Departure

	Left        []Left
	Doubles     []Double      // of answers that count no more
	TestDoubles []Double      // of test results that count no more
	Learners    []LearnerName // whose rows were learnt anew, all against one version, and stay under their token
	Rescored    []Rescored

	// SumsDone says that the durable sums hold the message already. They are
	// written first and as a whole, so that what is in the archive tells how to
	// change them until they are, and is not asked afterwards.
	SumsDone bool
}

// ErrAmended reports that somebody else has amended the sums of a partition by
// the same message while it was computed.
var ErrAmended = errors.New("another worker has amended the partition")

// amender is the part of Persistence that amendments need.
type amender interface {
	// FindEvents returns the newest row of every primary key under some event
	// ids, those that have left it too. All that was archived before must be
	// durable.
	FindEvents(ctx context.Context, partition int, which Archive, events []EventName) ([]Found, error)
	// Doubles returns the rows before a position that would stand at the primary key
	// of another row when all rows of some learners came under one token. Of rows at
	// one key that of the highest revision stays, then the earliest. Learners are
	// those that go somewhere, and those they go to.
	Doubles(ctx context.Context, partition int, which Archive, learners []Joining, before answer.Position) ([]Double, error)
	// LearnerAnswers returns the answers of some learners before a position.
	LearnerAnswers(ctx context.Context, partition int, learners []LearnerName, before answer.Position) (*ArchivedAnswers, error)
	// Amend makes an amendment durable: sums and norms as a whole, then the
	// archive with what comes before what goes, then skills, then progress. When
	// the sums were amended by the same message since they were restored, it
	// returns ErrAmended and has changed nothing.
	Amend(ctx context.Context, a *Amendment) error
	// Purge takes the rows of departed tokens off the disk. It may take long.
	Purge(ctx context.Context) error
}
