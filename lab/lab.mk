# The lab: everything outside of Fairway, for real, on this machine.

.PHONY: lab lab-down lab-status

.lab/bin/lab: FORCE
	@go build -o $@ ./lab/cmd/lab

.PHONY: FORCE
FORCE:

lab: .lab/bin/lab ## build and start the lab, and leave it running
	@.lab/bin/lab up --detach

lab-down: .lab/bin/lab ## stop the lab
	@.lab/bin/lab down

lab-status: .lab/bin/lab ## show what runs and where
	@.lab/bin/lab status
