/*
 * attachment.h
 *	  What the registry says of an attached table, its mapping compiled.
 */
#ifndef LOYALTY_ATTACHMENT_H
#define LOYALTY_ATTACHMENT_H

#include "postgres.h"

#include "executor/tuptable.h"
#include "nodes/execnodes.h"

#include "expression.h"

/* The columns of a mapped row */
typedef struct Target
{
	const char *name;
	Oid			type;
} Target;

/* What the rows of an attached table are; the statements below stand in this order */
typedef enum AttachedKind
{
	ATTACHED_PURCHASE,
	ATTACHED_ACTIVITY,
	ATTACHED_RETURN
} AttachedKind;

#define ATTACHED_KINDS 3

#define MAX_TARGETS 16
#define TARGET_REFERENCE 1

typedef struct Attachment
{
	MemoryContext context;
	Oid			relid;			/* the table or leaf whose layout the expressions read */
	uint64		generation;
	bool		is_lines;		/* relid is the table of lines */
	AttachedKind kind;
	int32		program_id;
	char	   *source;
	char	   *row_name;		/* of the attached table, also where relid is a leaf */
	char	   *label;			/* for messages */
	const Target *targets;
	int			ntargets;
	Expression *expression[MAX_TARGETS];
	Expression *qualifies;		/* NULL: always */
	Oid			relation;		/* as registered: the header, and its lines or InvalidOid */
	Oid			lines_relation;
	char	   *lines_query;	/* NULL: no table of lines */
	char	   *header_query;
	AttrNumber	key;			/* of the lines: the column that names the header */
	TupleTableSlot *slot;
	ExprContext *econtext;
	int			pins;			/* statements that use it now */
	bool		forgotten;		/* not in the cache any more */
} Attachment;

extern Attachment *AttachmentPin(Oid relid, bool returns);
extern void AttachmentUnpin(Attachment *attachment);

#endif							/* LOYALTY_ATTACHMENT_H */
