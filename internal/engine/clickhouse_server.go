package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"time"
)

const (
	// restartWindow and restartLimit: more restarts than the limit within the
	// window are a fault that another restart does not cure.
	restartWindow = time.Minute
	restartLimit  = 5
)

// ClickHouseServer is the embedded server: the gate that clients talk to and
// the child behind it.
type ClickHouseServer struct {
	ClickHouse ClickHouse

	config  Config
	library string
	gate    *gate
	space   *space
	merges  *heldMerges
	logger  *slog.Logger

	supervised bool            // start the child again when it dies
	ctx        context.Context // ends with Close and Kill
	cancel     context.CancelFunc
	stopping   sync.Once
	watcher    sync.WaitGroup // the goroutine that watches the child
	mended     time.Time      // when it was last started again for a damaged part; the watcher's

	done chan struct{} // closed when the server is over
	err  error         // why; read it after done

	mu       sync.Mutex
	child    *child // nil while it restarts
	restarts int
}

// StartClickHouse starts the embedded server alone; the addresses in the
// configuration do not matter. Unlike the server that Start starts, it stays
// down when its process dies by itself. The caller closes it.
func StartClickHouse(ctx context.Context, config Config, logger *slog.Logger) (*ClickHouseServer, error) {
	config.Kafka.Brokers, config.ClickHouse.Addresses = nil, nil
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("start clickhouse: %w", err)
	}
	if err := privateDir(config.DataDir); err != nil {
		return nil, fmt.Errorf("start clickhouse: %w", err)
	}
	return startServer(ctx, config, logger, false)
}

func startServer(ctx context.Context, config Config, logger *slog.Logger, supervised bool) (*ClickHouseServer, error) {
	began := time.Now()
	s := &ClickHouseServer{config: config, logger: logger, supervised: supervised, done: make(chan struct{}), merges: newHeldMerges()}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if err := s.begin(ctx); err != nil {
		return nil, fmt.Errorf("start embedded clickhouse: %w", err)
	}
	s.watcher.Go(s.watch)
	s.watcher.Go(func() { s.space.watch(s.ctx) })
	if limit := config.ClickHouse.HoldMerges; limit > 0 {
		s.watcher.Go(func() { s.mergeAgain(limit) })
	}
	logger.InfoContext(ctx, "embedded clickhouse is up", "native", s.ClickHouse.Addresses[0], "http", s.ClickHouse.HTTPAddress,
		"took", time.Since(began).Round(time.Millisecond))
	return s, nil
}

func (s *ClickHouseServer) begin(ctx context.Context) error {
	var err error
	if s.library, err = FindLibrary(s.config.LibraryPath); err != nil {
		return err
	}
	if s.ClickHouse, err = prepare(s.config); err != nil {
		return err
	}
	s.space = newSpace(s.config.DataDir)
	remembered := filepath.Join(s.config.DataDir, "clickhouse-ports")
	last, err := readPorts(remembered)
	if err != nil {
		return err
	}
	native, err := listen(s.config.ClickHouse.NativePort, last.Native)
	if err != nil {
		return err
	}
	web, err := listen(s.config.ClickHouse.HTTPPort, last.HTTP)
	if err != nil {
		return errors.Join(err, native.Close())
	}
	s.ClickHouse.Addresses, s.ClickHouse.HTTPAddress = []string{native.Addr().String()}, web.Addr().String()
	if s.child, err = startChild(ctx, s.config, s.library, s.ClickHouse, s.logger); err == nil {
		err = writePorts(remembered, ports{Native: portOf(native), HTTP: portOf(web)})
		if err == nil && s.config.ClickHouse.HoldMerges > 0 {
			err = s.child.statement(ctx, s.ClickHouse, stopMerges)
		}
		if err != nil {
			err = errors.Join(err, s.child.process.kill())
		}
	}
	if err != nil {
		return errors.Join(err, native.Close(), web.Close())
	}
	s.gate = openGate(native, web, s.target, s.space, s.logger)
	return nil
}

// target tells the gate where the child listens.
func (s *ClickHouseServer) target() (ports, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.child == nil {
		return ports{}, false
	}
	return s.child.ports, true
}

// watch follows the child until Close or Kill; it ends the server when the child
// died and may not, or can't, be started again.
func (s *ClickHouseServer) watch() {
	var deaths []time.Time
	look := time.NewTicker(damagePeriod)
	defer look.Stop()
	for {
		child, mending := s.child, false
		select {
		case <-s.ctx.Done():
		case <-child.process.done:
		case <-s.space.reached():
			if !s.waitForSpace() {
				return
			}
			continue
		case <-look.C:
			if mending = s.mend(); !mending {
				continue
			}
			<-child.process.done
		}
		if s.ctx.Err() != nil {
			return
		}
		if s.space.full() { // that may be what it died of, and another one would, too
			if !s.waitForSpace() {
				return
			}
			continue
		}
		err := fmt.Errorf("process ended: %w", child.process.reason())
		deaths = append(deaths, time.Now())
		recent := 0
		for _, at := range deaths {
			if time.Since(at) < restartWindow {
				recent++
			}
		}
		if !s.supervised && !mending || recent > restartLimit {
			s.end(err)
			return
		}
		s.logger.Error("embedded clickhouse died, starting it again", "error", err)
		if err := s.restart(); err != nil {
			s.end(err)
			return
		}
	}
}

// waitForSpace ends the child because the disk is full and starts another when
// there is space again; it returns false when the server is over.
func (s *ClickHouseServer) waitForSpace() bool {
	s.logger.Error("embedded clickhouse is ended: the disk is full, and it would lose what it acknowledges. Make space; it starts again by itself",
		"directory", s.config.DataDir, "needed_bytes", 2*spaceKept)
	child := s.child
	s.mu.Lock()
	s.child = nil
	s.mu.Unlock()
	if err := child.process.kill(); err != nil {
		s.logger.Error("embedded clickhouse can't be ended", "error", err)
	}
	for s.space.await(s.ctx) {
		s.space.renew()
		err := s.restart()
		switch {
		case err == nil:
			return true
		case s.ctx.Err() == nil && !s.space.full():
			s.end(err)
			return false
		}
	}
	return false
}

func (s *ClickHouseServer) restart() error {
	s.mu.Lock()
	s.child = nil
	s.mu.Unlock()
	next, err := startChild(s.ctx, s.config, s.library, s.ClickHouse, s.logger)
	if err != nil {
		return fmt.Errorf("start again: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.child = next
	s.restarts++
	return nil
}

// end makes the death known and frees the ports, as the death of a server does.
func (s *ClickHouseServer) end(err error) {
	s.err = errors.Join(err, s.gate.close(gateGrace))
	close(s.done)
}

// Done is closed when the server has died and was not started again.
func (s *ClickHouseServer) Done() <-chan struct{} { return s.done }

// Err tells how the server died. It may be called after Done is closed.
func (s *ClickHouseServer) Err() error { return s.err }

// Restarts tells how often the process was started again after it died.
func (s *ClickHouseServer) Restarts() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.restarts
}

// Close stops the server in order and waits for its end. It may be called again,
// and after Kill.
func (s *ClickHouseServer) Close() error {
	// Clients first: the engine waits for them.
	err := s.halt(func(p *process) error { return errors.Join(s.gate.close(gateGrace), p.close()) })
	if err != nil {
		return fmt.Errorf("stop embedded clickhouse: %w", err)
	}
	return nil
}

// ID returns the number of the process, 0 while it is started again.
func (s *ClickHouseServer) ID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.child == nil {
		return 0
	}
	return s.child.process.command.Process.Pid
}

// Kill ends the process with SIGKILL and frees the ports. It is for tests.
func (s *ClickHouseServer) Kill() error {
	err := s.halt(func(p *process) error { return errors.Join(p.kill(), s.gate.close(0)) })
	if err != nil {
		return fmt.Errorf("kill embedded clickhouse: %w", err)
	}
	return nil
}

// halt stops watching the child and then ends it in the given way, once.
func (s *ClickHouseServer) halt(how func(*process) error) (err error) {
	s.stopping.Do(func() {
		s.cancel()
		s.watcher.Wait()
		if s.child == nil || s.child.process.ended() {
			err = s.gate.close(0)
			return
		}
		err = how(s.child.process)
	})
	return err
}

// listen listens on the wanted loopback port; when it is 0, on the last one if
// it is free, else on any.
func listen(wanted, last int) (net.Listener, error) {
	var listener net.Listener
	var err error
	if wanted == 0 && last != 0 {
		listener, err = net.Listen("tcp", address(last))
	}
	if listener == nil {
		listener, err = net.Listen("tcp", address(wanted))
	}
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return listener, nil
}
