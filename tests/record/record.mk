# Recordings of workflows, which later code has to replay. SCENES are names of those to play, from
# tests/record/scenes: by default those about updates of clusters; "SCENES=" plays all of them, which
# takes twice as long; "SCENES=junction spur" are those about promotions, which need no cluster and one minute.
# RECORDFLAGS=-unreleased first deletes recordings that do not replay any more.

SCENES ?= train siding
RECORD_LAB := .lab/record
RECORD_CLUSTERS := dev-1,dev-2,alpha-1
ifeq ($(SCENES),train siding)
RECORD_CLUSTERS := dev-2,alpha-1
endif
ifneq ($(strip $(SCENES)),)
ifeq ($(filter-out junction spur,$(SCENES)),)
RECORD_CLUSTERS :=
endif
endif

.PHONY: record
record: .lab/bin/lab build ## play scenes on a lab of their own and keep the histories of their workflows (10 min)
	@go build -o bin/ ./tests/record ./tests/record/scenes
	@.lab/bin/lab up --dir $(RECORD_LAB) --detach --clusters=$(RECORD_CLUSTERS)
	@trap 'kill $$worker 2>/dev/null; wait; .lab/bin/lab down --dir $(RECORD_LAB)' EXIT; trap 'exit 1' INT TERM; \
	. $(RECORD_LAB)/env; bin/scenes -configure || exit; \
	bin/fairway-worker >$(RECORD_LAB)/log/worker.log 2>&1 & worker=$$!; \
	bin/scenes $(SCENES); played=$$?; \
	bin/record $(RECORDFLAGS) && exit $$played
	go test ./workflows -count 1 -run 'Record|Replay'

# Workflows about tests of pull requests are those of the scenarios; TESTS are names of these.
TESTS ?= ByHand|SuiteThatFails|LabelIsTakenAway
.PHONY: record-tests
record-tests: .lab/bin/lab ## run scenarios of pull requests and keep the histories of their workflows (5 min)
	FAIRWAY_RECORD=1 go test ./tests/pullrequests -count 1 -timeout 25m -run '$(TESTS)'
	go test ./workflows ./worker -count 1 -run 'Record|Replay'
