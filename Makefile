# loyalty: a customer-loyalty programme inside PostgreSQL
#
#   make install     build and install for the PostgreSQL of PG_CONFIG (a DBA's way)
#   make demo        everything on a bare Debian machine: a shop, its points, a report
#   make report      a report to look at, as one page; DB='host=... dbname=...' of a database that is there
#   make test        every test
#   make bench       the benchmarks
#
# demo, report, test and bench install what is missing from Debian and then work in a
# private server of their own.

PG_CONFIG ?= $(firstword $(wildcard /usr/lib/postgresql/15/bin/pg_config) \
               $(lastword $(sort $(wildcard /usr/lib/postgresql/*/bin/pg_config))) pg_config)

RELEASE = $(shell sed -n "s/^default_version = '\(.*\)'/\1/p" loyalty.control)

EXTENSION = loyalty
MODULE_big = loyalty
OBJS = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c)))
DATA_built = loyalty--$(RELEASE).sql
PGFILEDESC = "loyalty - customer loyalty inside the database"

SQL = $(sort $(wildcard sql/*.sql))
# the files build on each other in the schedule's order; expected/ is found under --outputdir.
# pg_regress would force its own time zone, DateStyle and IntervalStyle on psql
REGRESS = $(shell cat test/schedule)
REGRESS_OPTS = --inputdir=test --outputdir=. \
               --launcher="env PGTZ=UTC PGDATESTYLE=ISO,MDY PGOPTIONS="
SHLIB_LINK = -lsodium -lm
override with_llvm = no
EXTRA_CLEAN = loyalty--$(RELEASE).sql tmp_check regression.out regression.diffs results

WARNINGS = -Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers \
           -Wno-sign-compare -Wno-declaration-after-statement -Wno-clobbered
ifdef WERROR
WARNINGS += -Werror
endif
PG_CPPFLAGS = -DLOYALTY_VERSION='"$(RELEASE)"' -isystem $(shell $(PG_CONFIG) --includedir-server 2>/dev/null)
PG_CFLAGS = $(WARNINGS)

PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)
HAVE_PGXS := $(wildcard $(PGXS))

ifneq ($(HAVE_PGXS),)
include $(PGXS)
else
all install installcheck clean:
	@echo "PostgreSQL's server headers are missing: apt-get install postgresql-server-dev-15 libsodium-dev" >&2; exit 1
endif

loyalty--$(RELEASE).sql: $(SQL) loyalty.control
	{ printf '%s\n' '\echo Use "CREATE EXTENSION loyalty" to load this file. \quit'; cat $(SQL); } > $@

# every object depends on every header: the project is small
$(OBJS): $(wildcard src/*.h) loyalty.control

.PHONY: demo report test bench races model fuzz unit lint check-ubsan check-valgrind
# DATA is PGXS's name for files to install: the makes below must not inherit it
demo:
	@env -u DATA MAKEFLAGS= test/demo/run "$(DATA)"
# DB, FILE and PROGRAMME reach it through the environment, whatever characters they have
export DB FILE PROGRAMME
report:
	@env -u DATA MAKEFLAGS= test/report/run
test:
	@test/run
bench:
	@test/bench/run
# 64 sessions on 8 accounts, 10,000 races for the budget of a limit, and the server killed 20 times under them
races:
	@CLIENTS=64 OPS=100000 STORM=1000 VOUCHERS=10000 LIMITS=10000 KILLS=20 ENTRIES=1000000 TAP='???_*_crash' test/run races tap
# 100,000 random operations on the engine and on an obvious, slow model of it
model:
	@test/model/run SEEDS=100 OPS=1000
# inputs made up under the guidance of coverage: ten minutes for each thing that takes a text or bytes from strangers
fuzz:
	@test/fuzz/run SECONDS=600
unit:
	@test/run unit
lint:
	@test/run lint
# the regression tests and laws with every undefined behaviour a crash
check-ubsan:
	@SANITIZE=1 test/run regress laws isolation
# the regression tests in a server under valgrind: slow
check-valgrind:
	@VALGRIND=1 test/run regress
