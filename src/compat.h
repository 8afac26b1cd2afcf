/*
 * compat.h
 *	  What differs between PostgreSQL 15, 16, 17 and 18.  The only place that
 *	  knows server versions.
 */
#ifndef LOYALTY_COMPAT_H
#define LOYALTY_COMPAT_H

#include "postgres.h"

#include "fmgr.h"

#if PG_VERSION_NUM < 150000
#error "loyalty needs PostgreSQL 15 or later"
#endif

/* 16 took the varlena macros out of postgres.h */
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

/* 18 lets a module say its name and version */
#ifdef PG_MODULE_MAGIC_EXT
#define LOYALTY_MODULE_MAGIC PG_MODULE_MAGIC_EXT(.name = "loyalty", .version = LOYALTY_VERSION)
#else
#define LOYALTY_MODULE_MAGIC PG_MODULE_MAGIC
#endif

#endif							/* LOYALTY_COMPAT_H */
