/*
 * product.h
 *	  Articles as rules know them.
 */
#ifndef LOYALTY_PRODUCT_H
#define LOYALTY_PRODUCT_H

#include "postgres.h"

/* An article as rules know it */
typedef struct Product
{
	bool		known;
	bool		excluded;
	bool		own_brand;
	Datum		sku;
	Datum		category;		/* 0: null, and likewise below */
	Datum		brand;
	Datum		margin;
	Datum		partner;
} Product;

extern void ProductFind(int32 program_id, Datum *skus, int n, const Product **found);

#endif							/* LOYALTY_PRODUCT_H */
