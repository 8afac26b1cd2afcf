/*
 * source.h
 *	  Sources of transactions that belong to attached tables.
 */
#ifndef LOYALTY_SOURCE_H
#define LOYALTY_SOURCE_H

#include "postgres.h"

extern bool SourceReceiving(bool receiving);
extern void SourceCheck(Datum source);

#endif							/* LOYALTY_SOURCE_H */
