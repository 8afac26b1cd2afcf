/*
 * limit.h
 *	  Velocity limits: how much of what a subject may do in a sliding window.
 */
#ifndef LOYALTY_LIMIT_H
#define LOYALTY_LIMIT_H

#include "earn.h"
#include "ring.h"

/* The ring of one limit and subject, under the row lock of the subject */
typedef struct SubjectState
{
	int32		limit_id;
	int32		program_id;
	int			buckets;		/* 0: not known, the row is there */
	Datum		subject_kind;	/* 0: none */
	text	   *subject;
	bool		blocked;
	bool		changed;
	Ring		ring;
} SubjectState;

/* The row of one subject: the rings of all limits of its programme that limit it */
typedef struct SubjectRow
{
	int			first;			/* of the states that are asked about */
	int			nstates;
	bytea	   *rings;			/* as it was read; NULL: nothing */
} SubjectRow;

/* One limit that applies to an event */
typedef struct LimitUse
{
	const VelocityLimit *limit;			/* NULL: of another programme, given back only */
	int32		limit_id;
	int32		program_id;
	text	   *subject;
	SubjectState *state;
	int64		bucket;
	int64		granted;		/* what was admitted of it */
	bool		active;			/* it stands in the ring */
	bool		pinned;			/* by the award that is corrected */
	bool		judged;
} LimitUse;

/* What limits have to do with an event */
typedef struct EventLimits
{
	struct LimitBook *book;
	int64		source_id;
	bool		correcting;		/* the sale stands already: there is nothing to hold */
	bool		returned;		/* something came back of it */
	bool		of_member;		/* only limits whose subject is the member, whatever their conditions */
	bool		quoting;		/* nothing is to be written */
	bool		judged;
	int			nuses;
	LimitUse   *use;
	int			nold;			/* what stood before a correction */
	LimitUse   *old;
	struct LimitDecision *asked;	/* of a redemption: what each of use said */
} EventLimits;

/* A decision that is not a plain pass */
typedef struct LimitDecision
{
	int64		source_id;
	const LimitUse *use;
	bool		reached;
	LimitVerdict verdict;
	bool		blocked;
	bool		late;			/* it comes later than the ring remembers */
	int64		wanted;
	int64		used;
	int64		granted;
	int64		points_wanted;
	int64		points;
} LimitDecision;

/* The limits of a chunk of events */
typedef struct LimitBook
{
	MemoryContext context;
	List	   *events;			/* of EventLimits */
	List	   *decisions;		/* of LimitDecision */
	SubjectState *state;		/* in the order of programme, subject and limit */
	int			nstates;
	SubjectRow *row;			/* in the order of programme and subject */
	int			nrows;
} LimitBook;

/* The most points whose money is no more than so much money4 */
typedef int64 (*PointsWithin) (const Program *program, int64 money);

/* limit.c: deciding in memory */
extern EventLimits *LimitsOf(LimitBook *book, const Event *event);
extern void LimitsFind(EventLimits *limits, Program *program, const Event *event);
extern void LimitsPin(EventLimits *limits, const Program *program);
extern void LimitsForget(EventLimits *limits);
extern bool LimitsJudge(EventLimits *limits, const Event *event, Award *award,
						const char **reason, char **detail);
extern int64 LimitsAsk(EventLimits *limits, const Program *program, const Event *event, int64 points,
					   bool partial, PointsWithin within);
extern void LimitsRefuse(const EventLimits *limits);
extern void LimitsTake(EventLimits *limits, const Event *event, int64 points, int64 wanted);
extern void LimitsLeave(EventLimits *limits, int64 points, int64 money);

/* budget_form.c: the stored form of their rows */
extern void LimitsReadRings(const SubjectRow *row, SubjectState *state);
extern Datum LimitsRingsDatum(const SubjectRow *row, const SubjectState *state);
extern int	LimitsReadUses(const bytea *form, LimitUse **uses);
extern Datum LimitsUsesDatum(const LimitUse *use, int n);

/* budget.c: their rows */
extern bool LimitsExist(void);
extern LimitBook *LimitsOpen(void);
extern void LimitsReadOld(LimitBook *book, const int64 *sources, int n);
extern void LimitsKeys(LimitBook *book);
extern void LimitsLockKeys(LimitBook *book);
extern void LimitsLock(LimitBook *book);
extern void LimitsRead(LimitBook *book);
extern void LimitsFlush(LimitBook *book);

#endif							/* LOYALTY_LIMIT_H */
