# SPDX-License-Identifier: GPL-2.0
#
#     make                  both modules, for the newest Debian kernel, in the toolbox (build/modules/*.ko)
#     make KERNEL=RELEASE   the same for that kernel of Debian (7.2.12+deb13-amd64)
#     make KDIR=DIRECTORY   both modules for the kernel of that build directory, with this host's compilers
#     make install          those of KDIR (default: the running kernel) into /lib/modules/…/updates
#     make check            formats, lints, documents, layers
#     make test             all tests; ends with "N passed, N failed"
#     make debug-kernel     the kernel for the guests that checks itself (lockdep, KASAN, kmemleak, …), into the cache
#     make test-debug       the lab tests with that kernel in the guests
#     make test-faults      the lab tests with modules in which operations fail one after the other (FAULT_STEPS)
#     make migration        what suspends and migrations cost in time (MIGRATION_TURNS)
#     make soak             what can happen to guests, at random, for an hour (SOAK_MINUTES, SOAK_SEED; DEBUG=1: on the debug kernel)
#     make demo             netperf between two guests, without and with the modules (QUICK=1: a subset)
#     make costs            what acceleration costs: connections that it does not serve, asking for it, many streams at once (PART=streams:
#                           a part of it; also asking, elsewhere, loopback)
#     make bench            the ring alone, on this host
#     make update           look for a newer kernel, and take it for the toolbox
#     make clean            remove build/;  make distclean: and the caches

toolbox := scripts/toolbox run --
ifdef KDIR
build := scripts/build-modules $(KDIR)
else
build := $(toolbox) scripts/build-modules /usr/src/linux
endif

all:
	@$(build) modules modules

install: KDIR ?= /lib/modules/$(shell uname -r)/build
install:
	@scripts/build-modules $(KDIR) modules modules
	@scripts/build-modules $(KDIR) modules INSTALL_MOD_DIR=updates modules_install
	@depmod $(if $(INSTALL_MOD_PATH),-b $(INSTALL_MOD_PATH)) $$(cat $(KDIR)/include/config/kernel.release)

check:
	@scripts/check

test:
	@scripts/test

debug-kernel:
	@$(toolbox) scripts/debug-kernel

test-debug: all
	@tests/run --debug-kernel

test-faults: all
	@$(toolbox) scripts/build-modules /usr/src/linux modules-faults modules XENVMC_FAULTS=1
	@tests/run faults::

migration: all
	@MIGRATION_TURNS=$(MIGRATION_TURNS) tests/run pvh::migration::

soak: all
	@SOAK_MINUTES=$(SOAK_MINUTES) SOAK_SEED=$(SOAK_SEED) tests/run $(if $(DEBUG),--debug-kernel debug,pvh)::soak::

demo:
	@QUICK=$(QUICK) scripts/demo

costs:
	@scripts/demo --costs $(if $(PART),--part $(PART)) --output build/costs$(if $(PART),/$(PART))

bench:
	@$(toolbox) cargo bench --locked --manifest-path rust/core/Cargo.toml --target-dir build/cargo

update:
	@scripts/toolbox update

clean:
	@rm -rf build

distclean: clean
	@scripts/toolbox remove

.PHONY: all install check test debug-kernel test-debug test-faults soak migration demo costs bench update clean distclean
