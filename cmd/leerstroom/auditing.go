package main

import (
	"errors"
	"os"
	"os/user"
	"strconv"

	"github.com/leerstroom/leerstroom/internal/audit"
)

// roleOperator is the role of whoever runs a command on the machine.
const roleOperator = "operator"

// audited does something about identities or keys and keeps on record who did it:
// before it begins, because nothing may happen without a record, and how it ended.
// do fills in how many learners, identifiers or lines it was about.
func (d *deployment) audited(r audit.Record, do func(r *audit.Record) error) (err error) {
	log, err := audit.Open(d.layout.audit(), d.config.Audit, d.logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	r.Role, r.Operator, r.Outcome = roleOperator, operator(), audit.OutcomeBegun
	if err := log.Append(r); err != nil {
		return err
	}
	err = do(&r)
	r.Outcome = audit.OutcomeDone
	if err != nil {
		r.Outcome = audit.OutcomeFailed
	}
	return errors.Join(err, log.Append(r))
}

// operator names the account of the operating system that runs the command.
func operator() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	return "uid " + strconv.Itoa(os.Getuid())
}
