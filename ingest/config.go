package ingest

import (
	"errors"
	"fmt"
	"time"
)

// Config holds the limits of a Connector. The zero value of a field takes its
// default.
type Config struct {
	MaxBodyBytes     int64          `yaml:"max_body_bytes"`         // of a request as sent; 16 MiB
	MaxDecodedBytes  int64          `yaml:"max_decoded_bytes"`      // of a request after decompression; 128 MiB
	MaxRatio         int64          `yaml:"max_ratio"`              // decompressed bytes per received byte, beyond the first MiB; 200
	MaxLineBytes     int            `yaml:"max_line_bytes"`         // 16 KiB
	MaxRequests      int            `yaml:"max_requests"`           // at the same time, of all publishers; 64
	MaxPublisher     int            `yaml:"max_publisher"`          // at the same time, of one publisher, who never gets more than are free for others; 16
	MaxRefusals      int            `yaml:"max_refusals"`           // listed in a reply, the rest is counted; 100
	RequestTimeout   time.Duration  `yaml:"request_timeout"`        // to send a body; 60 s
	ClockSkew        time.Duration  `yaml:"clock_skew"`             // how far ahead a publisher's clock may be; 5 min
	Linger           time.Duration  `yaml:"linger"`                 // how long a request that has sent its last line waits for the lines of others; 5 ms
	MaxBatchRows     int            `yaml:"max_batch_rows"`         // rows of a message; 16,384
	MaxBatchBytes    int            `yaml:"max_batch_bytes"`        // of a message before compression; 2 MiB
	MaxBufferedBytes int64          `yaml:"max_buffered_bytes"`     // of lines not acknowledged yet; one publisher holds at most what is free for others; 64 MiB
	BufferTimeout    time.Duration  `yaml:"buffer_timeout"`         // how long a request waits for room before 503; 5 s
	ProduceTimeout   time.Duration  `yaml:"produce_timeout"`        // how long a message is tried before its requests get 503; 20 s
	TestIdentifiers  bool           `yaml:"test_identifiers"`       // accept ECK iDs of test chains; never in production
	NineDigits       []string       `yaml:"nine_digit_identifiers"` // publishers whose own ids are nine digits and may pass the eleven test
	Authorisations   Authorisations `yaml:"authorisations"`
}

// The limits that follow from the messages of Kafka and of Arrow.
const (
	largestBatchRows  = 1 << 18
	largestBatchBytes = 4 << 20
)

func (c *Config) setDefaults() {
	def(&c.MaxBodyBytes, 16<<20)
	def(&c.MaxDecodedBytes, 128<<20)
	def(&c.MaxRatio, 200)
	def(&c.MaxLineBytes, 16<<10)
	def(&c.MaxRequests, 64)
	def(&c.MaxPublisher, 16)
	def(&c.MaxRefusals, 100)
	def(&c.RequestTimeout, time.Minute)
	def(&c.ClockSkew, 5*time.Minute)
	def(&c.Linger, 5*time.Millisecond)
	def(&c.MaxBatchRows, 16384)
	def(&c.MaxBatchBytes, 2<<20)
	def(&c.MaxBufferedBytes, 64<<20)
	def(&c.BufferTimeout, 5*time.Second)
	def(&c.ProduceTimeout, 20*time.Second)
}

func def[T int | int64 | time.Duration](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}

// Validate names the field that is wrong.
func (c *Config) Validate() error {
	for _, f := range []struct {
		name  string
		value int64
	}{
		{"max_body_bytes", c.MaxBodyBytes}, {"max_decoded_bytes", c.MaxDecodedBytes}, {"max_ratio", c.MaxRatio}, {"max_line_bytes", int64(c.MaxLineBytes)},
		{"max_requests", int64(c.MaxRequests)}, {"max_publisher", int64(c.MaxPublisher)}, {"max_refusals", int64(c.MaxRefusals)},
		{"request_timeout", int64(c.RequestTimeout)}, {"clock_skew", int64(c.ClockSkew)}, {"linger", int64(c.Linger)},
		{"max_batch_rows", int64(c.MaxBatchRows)}, {"max_batch_bytes", int64(c.MaxBatchBytes)}, {"max_buffered_bytes", c.MaxBufferedBytes},
		{"buffer_timeout", int64(c.BufferTimeout)}, {"produce_timeout", int64(c.ProduceTimeout)},
	} {
		if f.value < 0 {
			return fmt.Errorf("%s: must not be negative", f.name)
		}
	}
	switch {
	case c.MaxBatchRows > largestBatchRows:
		return fmt.Errorf("max_batch_rows: at most %d", largestBatchRows)
	case c.MaxBatchBytes > largestBatchBytes:
		return fmt.Errorf("max_batch_bytes: at most %d", largestBatchBytes)
	case c.MaxLineBytes > 1<<20:
		return errors.New("max_line_bytes: at most 1 MiB")
	case c.MaxBufferedBytes > 0 && c.MaxBufferedBytes < 1<<20:
		return errors.New("max_buffered_bytes: at least 1 MiB")
	}
	return c.Authorisations.Validate()
}
