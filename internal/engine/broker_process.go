package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go"
)

const kafkaGrace = 30 * time.Second

// BrokerProcess is a broker in a process of its own, which can be killed: the
// embedded one for fault tests, or Apache Kafka.
type BrokerProcess struct {
	Address string // host:port

	process *process
	byInput bool // stops when its standard input ends
}

// StartBrokerProcess runs the embedded broker in a child process on a data
// directory, with the port and syncing of the configuration. The executable has
// to call RunIfChild first. The caller closes it.
func StartBrokerProcess(ctx context.Context, dir string, config KafkaConfig) (*BrokerProcess, error) {
	if err := privateDir(dir); err != nil {
		return nil, fmt.Errorf("start kafka process: %w", err)
	}
	executable, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find own executable: %w", err)
	}
	remembered := filepath.Join(dir, kafkaPortFile)
	for attempt := 1; ; attempt++ {
		chosen := config.Port
		if chosen == 0 {
			last, err := readPorts(remembered)
			if err != nil {
				return nil, fmt.Errorf("start kafka process: %w", err)
			}
			found, err := freePorts(last.Native)
			if err != nil {
				return nil, fmt.Errorf("start kafka process: %w", err)
			}
			chosen = found[0]
		}
		command := exec.Command(executable, ChildKafka, dir, strconv.Itoa(chosen), strconv.FormatBool(config.UnsyncedWrites))
		command.Env = []string{"PATH=" + os.Getenv("PATH")}
		command.SysProcAttr = detached()
		broker, err := launchBroker(ctx, command, chosen, true)
		if err == nil {
			return broker, nil
		}
		if !errors.Is(err, errEnded) || config.Port != 0 || free(ports{Native: chosen}) || attempt == startAttempts {
			return nil, fmt.Errorf("start kafka process: %w", err)
		}
	}
}

func launchBroker(ctx context.Context, command *exec.Cmd, port int, byInput bool) (*BrokerProcess, error) {
	child, err := startProcess(command, kafkaGrace)
	if err != nil {
		return nil, err
	}
	b := &BrokerProcess{Address: address(port), process: child, byInput: byInput}
	if err := child.await(ctx, func(ctx context.Context) error { return AnswersKafka(ctx, b.Address) }); err != nil {
		return nil, errors.Join(err, child.kill())
	}
	return b, nil
}

// AnswersKafka returns nil when a broker at the address knows itself among the
// live brokers.
func AnswersKafka(ctx context.Context, broker string) error {
	ctx, cancel := context.WithTimeout(ctx, handshakeLimit)
	defer cancel()
	transport := &kafka.Transport{DialTimeout: handshakeLimit, Context: ctx}
	defer transport.CloseIdleConnections()
	dialer := net.Dialer{}
	conn, err := dialer.DialContext(ctx, "tcp", broker)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	if err := conn.Close(); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	client := kafka.Client{Addr: kafka.TCP(broker), Transport: transport}
	response, err := client.Metadata(ctx, &kafka.MetadataRequest{})
	if err != nil {
		return fmt.Errorf("read metadata: %w", err)
	}
	for _, known := range response.Brokers {
		if net.JoinHostPort(known.Host, strconv.Itoa(known.Port)) == broker && known.ID == response.Controller.ID {
			return nil
		}
	}
	return errors.New("the broker is not registered yet")
}

// Done is closed when the process has ended, for whatever reason.
func (b *BrokerProcess) Done() <-chan struct{} { return b.process.done }

// Err tells how the process ended. It may be called after Done is closed.
func (b *BrokerProcess) Err() error { return b.process.reason() }

// ID returns the number of the process.
func (b *BrokerProcess) ID() int { return b.process.command.Process.Pid }

// Kill ends the broker with SIGKILL.
func (b *BrokerProcess) Kill() error { return b.process.kill() }

// Close stops the broker and waits for its end.
func (b *BrokerProcess) Close() error {
	if b.process.ended() {
		return nil
	}
	if !b.byInput {
		return b.process.terminate()
	}
	if err := b.process.close(); err != nil {
		return fmt.Errorf("stop kafka process: %w", err)
	}
	return nil
}
