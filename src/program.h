/*
 * program.h
 *	  A backend's immutable snapshot of a programme: policies, tiers, rules.
 */
#ifndef LOYALTY_PROGRAM_H
#define LOYALTY_PROGRAM_H

#include "postgres.h"

#include "executor/tuptable.h"
#include "nodes/execnodes.h"
#include "pgtime.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "calendar.h"
#include "currency.h"
#include "expression.h"
#include "facts.h"
#include "lots.h"
#include "tier.h"

typedef enum RuleEvent
{
	ON_PURCHASE,
	ON_LINE,
	ON_ACTIVITY,
	ON_REDEMPTION				/* of limits alone */
} RuleEvent;

#define RULE_EVENTS 3			/* those that rules may have */

typedef enum RuleKind
{
	RULE_BASE,
	RULE_MULTIPLY,
	RULE_BONUS
} RuleKind;

typedef enum Rounding
{
	ROUNDING_FLOOR,
	ROUNDING_NEAREST,
	ROUNDING_CEIL
} Rounding;

typedef struct Rule
{
	int32		rule_id;
	int32		program_id;
	int32		version_id;
	int			version;
	char	   *name;
	RuleEvent	event;
	RuleKind	kind;
	int			group;			/* 0: none; else rules of one number exclude each other */
	TimestampTz active_from;
	TimestampTz active_until;
	TimestampTz created_at;
	TimestampTz retired_from;	/* DT_NOEND: not retired */
	TimestampTz retired_at;
	Expression *points;
	Expression *condition;		/* NULL: always */
	bool		capped;			/* it has a cap or a budget */
	int64		cap[CALENDAR_PERIODS];	/* most that a member is given of it, in smallest units; -1: no cap */
	int64		stock_id;		/* where the shares of its budget are; 0: none */
	TimestampTz budget_since;	/* awards that were decided before are not of it */
} Rule;

typedef enum CardCounts
{
	COUNT_UNITS,
	COUNT_VISITS,
	COUNT_AMOUNT
} CardCounts;

/* A stamp card: what it counts, and on which lines */
typedef struct Card
{
	int32		card_id;
	char	   *name;
	CardCounts	counts;
	TimestampTz valid_from;		/* purchases that occur in [valid_from, valid_until) */
	TimestampTz valid_until;
	TimestampTz retired_at;		/* and were recorded before; DT_NOEND: not retired */
	Expression *condition;		/* NULL: always */
} Card;

typedef enum LimitMeasure
{
	MEASURE_COUNT,
	MEASURE_AMOUNT,
	MEASURE_POINTS
} LimitMeasure;

typedef enum LimitVerdict
{
	LIMIT_ALLOW,
	LIMIT_CLIP,
	LIMIT_HOLD,
	LIMIT_REJECT
} LimitVerdict;

/* A velocity limit: so much of a measure in any window, for each subject */
typedef struct VelocityLimit
{
	int32		limit_id;
	int32		program_id;
	char	   *name;
	RuleEvent	event;			/* ON_PURCHASE, ON_ACTIVITY or ON_REDEMPTION */
	LimitMeasure measure;
	LimitVerdict verdict;
	int64		maximum;		/* transactions, money4 or smallest units of a point */
	int			digits;			/* decimal digits of these */
	int64		width;			/* of a sub-bucket, in microseconds */
	int			buckets;
	Datum		subject_kind;	/* text; 0: no list of blocked subjects */
	TimestampTz active_from;
	TimestampTz created_at;
	TimestampTz retired_at;		/* DT_NOEND: not retired */
	Expression *subject;
	Expression *condition;		/* NULL: always */
	bool		of_member;		/* the subject reads nothing but the member */
} VelocityLimit;

/* One tier as rules and reports see it; the pure part is in tier.h */
typedef struct ProgramTier
{
	char	   *name;
	Datum		name_datum;
	Numeric		multiplier;
	bool		multiplies;		/* the multiplier is not 1 */
	int64		negative_limit; /* -1: none; the programme's where the tier says nothing */
	int			reinstate_days;	/* likewise */
} ProgramTier;

/* Rules of one event: those to try always and those found by a fact's value */
typedef struct RuleIndex
{
	int			nalways;
	int		   *always;			/* positions in Program.rule */
	int			ncolumns;
	struct RuleColumn *column;
} RuleIndex;

typedef struct Program
{
	MemoryContext context;
	int32		program_id;
	int32		wallet_of;		/* the programme that this is a wallet of; 0: none */
	int32		catalog_id;		/* whose articles it knows: that programme's, or its own */
	TimestampTz created_at;
	int			nwallets;
	int32	   *wallet;			/* its own wallets, ascending */
	char	   *name;
	pg_tz	   *zone;
	char		currency[4];
	int			points_scale;
	int			hold_days;
	bool		pending_release;	/* points wait for a release instead */
	ExpiryPolicy expiry;
	Rounding	rounding;
	bool		best_multiplier;
	bool		earn_on_tax;
	bool		earn_on_shipping;
	bool		earn_on_gift_card;
	bool		earn_on_points;
	NegativePolicy negative;
	int64		negative_limit; /* -1: none */
	bool		hold_on_error;
	Numeric		point_value;	/* money of a whole point; NULL: none */
	RestorePolicy restore;
	int			restore_days;
	int			reinstate_days;
	int64		redeem_min;		/* smallest units, likewise below */
	int64		redeem_step;
	int64		redeem_max;		/* -1: none */
	int64		transfer_max;	/* -1: none */
	int			household_max;	/* 0: no limit */
	int64		proof_above;	/* -1: none is asked for */
	bool		limits_cashiers;
	bool		knows_cashiers; /* some are members, who enter nothing for themselves */
	bool		has_policies;	/* of activities */
	Numeric		unit_value;		/* money of a smallest unit of a point; NULL: none */
	int			currency_digits;

	TierPolicy	tier_policy;
	int			ntiers;
	Tier	   *tier;			/* by rank, ascending */
	ProgramTier *tier_info;

	int			nrules;
	Rule	  **rule;			/* by priority, rule id, version */
	bool		has_caps;		/* some rule has a cap or a budget */
	RuleIndex	index[RULE_EVENTS];
	int			ncards;
	Card	   *card;			/* stamp cards, by id */
	int			nchallenges;	/* whatever becomes of them in challenge.c */
	int			nlimits;
	VelocityLimit *limit;			/* velocity limits, retired ones too, by id */
	bool		limits_spending;	/* some of them is or was on redemptions */
	Bitmapset  *columns;		/* facts that some rule, card or limit names */
	bool		uses_members;	/* some rule names what stands in the member's row alone */
	bool		uses_products;	/* some rule names product, or an article is excluded */

	TupleTableSlot *facts;		/* the wide tuple that expressions read */
	ExprContext *econtext;

	int			pins;
	bool		stale;
	struct Program *next_orphan;
} Program;

extern void ProgramInit(void);
extern uint64 ProgramGeneration(void);
extern uint64 ProgramRelcacheGeneration(void);
extern Program *ProgramPin(int32 program_id);
extern void ProgramUnpin(Program *program);
extern Program *ProgramDraft(int32 program_id, Datum draft_rules, bool keep_existing);
extern void ProgramFree(Program *program);

extern int	ProgramCandidates(Program *program, RuleEvent event, int *candidates);
extern bool RuleApplies(const Rule *rule, TimestampTz occurred_at, TimestampTz known_at);
extern int64 ProgramNegativeLimit(const Program *program, int32 tier_id);
extern int	ProgramReinstateDays(const Program *program, int32 tier_id);
extern int	ProgramTierIndex(const Program *program, int32 tier_id);
extern int32 ProgramDay(const Program *program, TimestampTz at);
extern Timestamp ProgramLocal(const Program *program, TimestampTz at);
extern Numeric ProgramRate(const Program *program, const char *currency, int32 day);

extern Numeric ProgramCheckRule(const char *name, const char *event, const char *kind,
							 const char *points, const char *condition);
extern void ProgramCheckCard(const char *name, const char *condition);
extern void ProgramCheckLimit(const char *name, const char *event, const char *subject,
							  const char *condition);
extern const char *ProgramConstant(const char *condition, const char *event);

#endif							/* LOYALTY_PROGRAM_H */
