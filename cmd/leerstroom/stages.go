package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/leerstroom/leerstroom/internal/deadletter"
	"github.com/leerstroom/leerstroom/internal/handover"
	"github.com/leerstroom/leerstroom/internal/seal"
	"github.com/leerstroom/leerstroom/internal/stream"
	"github.com/leerstroom/leerstroom/pseudonymize"
	"github.com/leerstroom/leerstroom/pseudonymize/vault"
	"github.com/leerstroom/leerstroom/store"
	"github.com/leerstroom/leerstroom/transform"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
)

// The stages by name, as subcommands and in messages.
const (
	stageIngest       = "ingest"
	stagePseudonymize = "pseudonymize"
	stageTransform    = "transform"
	stageServe        = "serve"
)

// Consumer groups, as topics under the prefix of the deployment.
const (
	groupPseudonymize = "leerstroom-pseudonymize"
	groupTransform    = "leerstroom-transform"
	groupReduce       = "leerstroom-reduce"
	groupDeadLetters  = "leerstroom-deadletters"
)

// runStages runs the named stages until ctx ends or one of them fails. ready is
// called once, when the HTTP interface of ingest and serve answers.
func (d *deployment) runStages(ctx context.Context, stages []string, ready func(address string)) error {
	group, ctx := errgroup.WithContext(ctx)
	registry := prometheus.NewRegistry()
	letters, err := deadletter.NewCounter(registry)
	if err != nil {
		return err
	}
	web := &webStages{deployment: d, registry: registry}
	if slices.Contains(stages, stageServe) {
		if slices.Contains(stages, stageTransform) {
			d.restored = new(handover.Handover[*transform.Restored])
		}
		if slices.Contains(stages, stagePseudonymize) {
			d.registries = new(vault.Handover)
		}
	}
	for _, name := range stages {
		switch name {
		case stagePseudonymize:
			group.Go(func() error { return d.runPseudonymize(ctx, letters) })
			group.Go(func() error { d.warnOfReturned(ctx); return nil })
		case stageTransform:
			group.Go(func() error { return d.runTransform(ctx, registry, letters) })
		case stageIngest:
			web.ingest = true
		case stageServe:
			web.serve = true
		default:
			return fmt.Errorf("no stage is called %s", name)
		}
	}
	switch {
	case web.ingest || web.serve:
		group.Go(func() error { return web.run(ctx, ready) })
	case d.config.MetricsListen != "":
		group.Go(func() error { return web.runWatched(ctx, ready) })
	case ready != nil:
		ready("")
	}
	group.Go(func() error { return d.watchEngines(ctx) })
	if d.readings != nil {
		group.Go(func() error {
			if d.readings.await(ctx) {
				d.engines.ReleaseMerges()
			}
			return nil
		})
	}
	return group.Wait()
}

// watchEngines fails when an embedded engine ends by itself.
func (d *deployment) watchEngines(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-d.engines.Done():
		return d.engines.Err()
	}
}

// runPseudonymize is the only stage that can open raw.
func (d *deployment) runPseudonymize(ctx context.Context, letters *prometheus.CounterVec) error {
	private, err := loadSealingKeys(d.layout)
	if err != nil {
		return err
	}
	letterSealer, err := d.newSealer()
	if err != nil {
		return err
	}
	identities, ring, err := d.openVault()
	if err != nil {
		return err
	}
	stage, err := pseudonymize.NewStage(pseudonymize.StageConfig{Client: d.client, Topics: d.names, Partitions: d.config.Topics.Partitions,
		Ring: ring, Vault: identities, PrivateKeys: private,
		ReloadKeys: func() ([]*seal.PrivateKey, error) { return loadSealingKeys(d.layout) }, LetterSealer: letterSealer, DeadLetters: letters, Engines: d.engineTopics(), Logger: d.logger})
	if err != nil {
		return err
	}
	consumer, err := stream.NewConsumer(d.client, stream.ConsumerConfig{Group: d.config.Topics.Prefix + groupPseudonymize, Topic: d.names.Raw,
		Workers: d.config.Workers, SessionTimeout: d.config.SessionTimeout, Members: d.layout.members(), NewHandler: stage.Handler})
	if err != nil {
		return err
	}
	return consumer.Run(ctx)
}

// engineTopics are the engines that get answers of their own. Whether a school
// allows it is asked for every message.
func (d *deployment) engineTopics() []pseudonymize.EngineTopic {
	var topics []pseudonymize.EngineTopic
	for _, e := range d.config.Engines {
		topics = append(topics, pseudonymize.EngineTopic{Name: e.Name, Topic: d.config.Topics.Prefix + e.Topic,
			Allows: func(school string) bool { return d.allowed.engine(e.Name, school) }})
	}
	return topics
}

// runTransform scores and archives, and reduces item sums to snapshots.
func (d *deployment) runTransform(ctx context.Context, registry prometheus.Registerer, written *prometheus.CounterVec) (err error) {
	persistence, err := d.openStore(ctx)
	if err != nil {
		return err
	}
	defer closeStore(ctx, persistence, &err)
	sealer, err := d.newSealer()
	if err != nil {
		return err
	}
	letters := &deadletter.Writer{Client: d.client, Topic: d.names.DeadLetters, Sealer: sealer, Stage: stageTransform, Written: written}
	catalog := transform.NewCatalog()
	snapshots, err := transform.NewSnapshots(transform.SnapshotsConfig{Client: d.client, Topic: d.names.Items, Persistence: persistence,
		Catalog: catalog, Logger: d.logger, Registry: registry})
	if err != nil {
		return err
	}
	stage, err := transform.NewStage(transform.StageConfig{Client: d.client, Topics: d.names, Persistence: &restoring{persistence, d.readings, d.restored}, Snapshots: snapshots,
		Catalog: catalog, Now: now, NormInterval: d.config.NormInterval, Logger: d.logger, Registry: registry,
		DeadLetter: func(ctx context.Context, partition int, reason string, m *stream.Message) error {
			return letters.Write(ctx, d.names.Answers, partition, reason, m)
		}})
	if err != nil {
		return err
	}
	reducer, err := transform.NewReducer(transform.ReducerConfig{Client: d.client, Topics: d.names, Persistence: persistence,
		Partitions: d.config.Topics.Partitions, Now: now, Logger: d.logger, Registry: registry})
	if err != nil {
		return err
	}
	return d.consumeAnswers(ctx, persistence, snapshots, stage, reducer)
}

// handoverPatience is how long a part of a process that starts waits for another
// part to read what both need: as long as a group may wait for members that died.
// Joining takes a second, and longer on busy cores, where reading twice hurts most.
const handoverPatience = 10 * time.Second

// restoring is a store whose restored partitions the query service of the same
// process takes in as well, while they are read.
type restoring struct {
	*store.Store
	readings *readings
	restored *handover.Handover[*transform.Restored]
}

// Restore implements transform.Persistence.
func (r *restoring) Restore(ctx context.Context, partition int) (transform.Restored, error) {
	defer r.readings.begin()()
	restored, err := r.Store.Restore(ctx, partition)
	if err == nil {
		r.restored.Offer(partition, &restored)
	}
	return restored, err
}

// RestoreSkills reads what the query service needs of a partition.
func (r *restoring) RestoreSkills(ctx context.Context, partition int) (transform.Restored, error) {
	defer r.readings.begin()()
	return r.Store.RestoreSkills(ctx, partition)
}

// consumeAnswers runs everything that the transform stage reads: answers, item
// sums, and the dead letters that it enters in the index.
func (d *deployment) consumeAnswers(ctx context.Context, persistence *store.Store, snapshots *transform.Snapshots, stage *transform.Stage, reducer *transform.Reducer) error {
	answers, err := stream.NewConsumer(d.client, stream.ConsumerConfig{Group: d.config.Topics.Prefix + groupTransform, Topic: d.names.Answers,
		Workers: d.config.Workers, SessionTimeout: d.config.SessionTimeout, Members: d.layout.members(), NewHandler: stage.Handler})
	if err != nil {
		return err
	}
	sums, err := stream.NewConsumer(d.client, stream.ConsumerConfig{Group: d.config.Topics.Prefix + groupReduce, Topic: d.names.ItemSums,
		Workers: 1, SessionTimeout: d.config.SessionTimeout, Members: d.layout.members(), NewHandler: func(partition int) stream.Handler {
			return &refitSchedule{Handler: reducer.Handler(partition), deployment: d, store: persistence}
		}})
	if err != nil {
		return err
	}
	letters, err := stream.NewConsumer(d.client, stream.ConsumerConfig{Group: d.config.Topics.Prefix + groupDeadLetters, Topic: d.names.DeadLetters,
		Workers: 1, SessionTimeout: d.config.SessionTimeout, Members: d.layout.members(), IdleInterval: time.Second, NewHandler: persistence.DeadLetterHandler})
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return letters.Run(ctx) })
	group.Go(func() error { return snapshots.Run(ctx) })
	group.Go(func() error { return sums.Run(ctx) })
	group.Go(func() error {
		select {
		case <-snapshots.Ready():
			return answers.Run(ctx)
		case <-ctx.Done():
			return nil
		}
	})
	return group.Wait()
}
