package query

import (
	"fmt"

	"github.com/leerstroom/leerstroom/internal/access"
	"github.com/leerstroom/leerstroom/internal/audit"
)

// served writes the record of a request that is about to be answered. After an
// error it must not be: what was seen has a record.
func (h *Handler) served(c *call, record audit.Record) error {
	return h.audit(c, record, audit.OutcomeServed)
}

// refused writes the record of a request that is refused, and returns the
// refusal. Only then is it sent: attempts leave a trace, too.
func (h *Handler) refused(c *call, record audit.Record, problem access.Problem) error {
	if err := h.audit(c, record, problem.Code); err != nil {
		return err
	}
	return &refusal{problem}
}

func (h *Handler) audit(c *call, record audit.Record, outcome string) error {
	record.Outcome, record.Key, record.Role = outcome, c.caller.KeyID, string(c.caller.Role)
	if err := h.config.Audit(record); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	return nil
}
