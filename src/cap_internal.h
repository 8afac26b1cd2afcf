/*
 * cap_internal.h
 *	  Inside the room of caps: what is counted in memory, and its rows.
 */
#ifndef LOYALTY_CAP_INTERNAL_H
#define LOYALTY_CAP_INTERNAL_H

#include "cap.h"

#include "nodes/pg_list.h"
#include "utils/hsearch.h"

/* How a rule's points for one source stand in the counters */
typedef struct CapStand
{
	bool		there;
	int64		member_id;
	int32		day;
	int64		granted;		/* smallest units */
	bool		active;			/* it counts; false: given back with the whole purchase */
	bool		budgeted;		/* it is of the rule's budget */
	Numeric		wanted;			/* exactly */
	int64		allowed;		/* what was left where more was wanted; -1: all was */
} CapStand;

/* What a source used of one version of a capped rule */
typedef struct CapUse
{
	int32		version_id;
	int32		rule_id;
	int32		program_id;
	int64		cap[CALENDAR_PERIODS];	/* -1: none */
	int64		stock_id;		/* 0: none */
	int64		drawn;			/* from the shares of the budget, for now.granted */
	CapStand	stored;			/* as its row says */
	CapStand	now;			/* as the counters in memory say */
} CapUse;

/* What capped rules have to do with one event */
typedef struct EventCaps
{
	EarnCaps	base;
	CapBook    *book;
	Event	   *event;
	int			nuses;
	int			size;
	CapUse	   *use;
} EventCaps;

/* A counter: what a rule gave to a member in a period */
typedef struct CounterKey
{
	int64		member_id;
	int32		rule_id;
	int32		period;
	int32		from;
	int32		padding;
} CounterKey;

typedef struct Counter
{
	CounterKey	key;
	int64		used;
	int64		stored;
} Counter;

/* Points of a budget that a chunk took and has not used; they go back when it is done */
typedef struct Purse
{
	int64		stock_id;
	int64		points;
	int64		last;			/* how much was taken ahead; 0: nothing yet */
} Purse;

struct CapBook
{
	CapMode		mode;
	MemoryContext context;
	List	   *events;			/* of EventCaps */
	List	   *purses;			/* of Purse */
	HTAB	   *counters;		/* NULL: none was asked for */
};

extern CapUse *CapAddUse(EventCaps *caps);
extern Numeric CapKeepNumber(const CapBook *book, Numeric value);
extern int64 CapReadUsed(const CounterKey *key);
extern void CapEmptyPurses(CapBook *book);

#endif							/* LOYALTY_CAP_INTERNAL_H */
