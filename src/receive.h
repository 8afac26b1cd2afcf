/*
 * receive.h
 *	  Mapped rows of attached tables become transactions.
 */
#ifndef LOYALTY_RECEIVE_H
#define LOYALTY_RECEIVE_H

#include "attachment.h"
#include "utils/tuplestore.h"

extern void ReceiveMapped(const Attachment *attachment, Tuplestorestate *mapped, TupleDesc desc,
						  bool inserting);
extern void ReceiveAsOwner(const Attachment *attachment, Oid relation, const char *sql, int nargs,
						   Oid *types, Datum *values);

#endif							/* LOYALTY_RECEIVE_H */
