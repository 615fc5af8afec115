package engine

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"text/template"
)

// writeServerConfig writes config.xml and users.xml. The clear password stands
// in config.xml only when there are remote servers, which need it.
func writeServerConfig(dir string, config ClickHouseConfig, connection ClickHouse, chosen ports) error {
	digest := sha256.Sum256([]byte(connection.Password))
	ratio := config.MemoryRatio
	if ratio == 0 {
		ratio = defaultMemoryRatio
	}
	values := serverValues{
		Dir: dir, Ports: chosen, Host: loopback, MemoryRatio: ratio, Pool: max(2, runtime.NumCPU()), SpaceKept: spaceKept,
		Synced: !config.UnsyncedWrites, Cluster: config.Cluster,
		User: connection.User, Password: connection.Password, PasswordSHA256: hex.EncodeToString(digest[:]),
	}
	for _, a := range config.RemoteServers {
		host, port, err := net.SplitHostPort(a)
		if err != nil {
			return fmt.Errorf("remote server %q is not host:port", a)
		}
		values.Shards = append(values.Shards, shard{Host: host, Port: port})
	}
	for name, text := range map[string]string{"config.xml": configXML, "users.xml": usersXML} {
		parsed, err := template.New(name).Funcs(template.FuncMap{"x": escapeXML, "path": filepath.Join}).Parse(text)
		if err != nil {
			return fmt.Errorf("parse template of %s: %w", name, err)
		}
		var out bytes.Buffer
		if err := parsed.Execute(&out, values); err != nil {
			return fmt.Errorf("fill in %s: %w", name, err)
		}
		if err := writeFile(filepath.Join(dir, name), out.Bytes()); err != nil {
			return err
		}
	}
	return nil
}

type serverValues struct {
	Dir            string
	Ports          ports
	Host           string
	MemoryRatio    float64
	Pool           int
	SpaceKept      int64
	Synced         bool
	Cluster        string
	Shards         []shard
	User           string
	Password       string
	PasswordSHA256 string
}

type shard struct{ Host, Port string }

func escapeXML(s string) (string, error) {
	var out strings.Builder
	if err := xml.EscapeText(&out, []byte(s)); err != nil {
		return "", fmt.Errorf("escape: %w", err)
	}
	return out.String(), nil
}

// configXML is read by clickhouse-local, which takes most of the settings of a
// server. It makes no system logs (query_log and the like) unless asked, and it
// has no crash reporting; both are said all the same, because they would copy
// what queries contain.
//
// The log is for what an operator has to know about parts and disks. The text of
// a failed query may hold tokens, so the loggers that quote queries are off.
// ClickHouse's tables of logs about itself are not mentioned at all: a section of
// that name turns one on, whatever it says.
const configXML = `<clickhouse>
  <logger>
    <log>{{x (path .Dir "log/clickhouse.log")}}</log>
    <size>10M</size>
    <count>3</count>
    <levels>
      <logger><name>executeQuery</name><level>none</level></logger>
      <logger><name>TCPHandler</name><level>none</level></logger>
      <logger><name>HTTPHandler</name><level>none</level></logger>
      <logger><name>DynamicQueryHandler</name><level>none</level></logger>
    </levels>
  </logger>
  <listen_host>{{.Host}}</listen_host>
  <tcp_port>{{.Ports.Native}}</tcp_port>
  <http_port>{{.Ports.HTTP}}</http_port>
  <users_config>{{x (path .Dir "users.xml")}}</users_config>
  <timezone>UTC</timezone>
  <send_crash_reports><enabled>false</enabled></send_crash_reports>
  <storage_configuration><disks><default><keep_free_space_bytes>{{.SpaceKept}}</keep_free_space_bytes></default></disks></storage_configuration>
  <backups>
    <allowed_path>{{x (path .Dir "backups")}}/</allowed_path>
  </backups>
  <max_server_memory_usage_to_ram_ratio>{{.MemoryRatio}}</max_server_memory_usage_to_ram_ratio>
  <shutdown_wait_unfinished>2</shutdown_wait_unfinished>
  <max_concurrent_queries>100</max_concurrent_queries>
  <max_thread_pool_size>1000</max_thread_pool_size>
  <background_pool_size>{{.Pool}}</background_pool_size>
  <background_merges_mutations_concurrency_ratio>2</background_merges_mutations_concurrency_ratio>
  <background_schedule_pool_size>16</background_schedule_pool_size>
  <mark_cache_size>268435456</mark_cache_size>
  <primary_index_cache_size>268435456</primary_index_cache_size>
  <uncompressed_cache_size>0</uncompressed_cache_size>
  <merge_tree>
    <number_of_free_entries_in_pool_to_lower_max_size_of_merge>1</number_of_free_entries_in_pool_to_lower_max_size_of_merge>
    <number_of_free_entries_in_pool_to_execute_mutation>1</number_of_free_entries_in_pool_to_execute_mutation>
    <number_of_free_entries_in_pool_to_execute_optimize_entire_partition>1</number_of_free_entries_in_pool_to_execute_optimize_entire_partition>
{{- if .Synced}}
    <fsync_after_insert>1</fsync_after_insert>
    <fsync_part_directory>1</fsync_part_directory>
    <min_rows_to_fsync_after_merge>1</min_rows_to_fsync_after_merge>
    <old_parts_lifetime>480</old_parts_lifetime>
{{- end}}
  </merge_tree>
  <remote_servers>
{{- if .Shards}}
    <{{.Cluster}}>
{{- range .Shards}}
      <shard>
        <replica><host>{{x .Host}}</host><port>{{.Port}}</port><user>{{x $.User}}</user><password>{{x $.Password}}</password></replica>
      </shard>
{{- end}}
    </{{.Cluster}}>
{{- end}}
  </remote_servers>
</clickhouse>
`

// usersXML: clickhouse-local runs its own session as the user default, without a
// password, and whoever reaches the port can log in as that user. It may do what
// that session needs and no more. Our user may do everything.
const usersXML = `<clickhouse>
  <profiles>
    <default>
      <query_profiler_real_time_period_ns>0</query_profiler_real_time_period_ns>
      <query_profiler_cpu_time_period_ns>0</query_profiler_cpu_time_period_ns>
      <log_queries>0</log_queries>
      <allow_introspection_functions>0</allow_introspection_functions>
    </default>
  </profiles>
  <quotas><default/></quotas>
  <users>
    <default>
      <password></password>
      <networks><ip>{{.Host}}</ip></networks>
      <profile>default</profile>
      <quota>default</quota>
      <grants>
        <query>GRANT SYSTEM LISTEN ON *.*</query>
        <query>GRANT READ ON FILE</query>
        <query>GRANT CREATE TEMPORARY TABLE ON *.*</query>
      </grants>
    </default>
    <{{.User}}>
      <password_sha256_hex>{{.PasswordSHA256}}</password_sha256_hex>
      <networks><ip>{{.Host}}</ip></networks>
      <profile>default</profile>
      <quota>default</quota>
      <grants>
        <query>GRANT ALL ON *.* WITH GRANT OPTION</query>
      </grants>
    </{{.User}}>
  </users>
</clickhouse>
`
