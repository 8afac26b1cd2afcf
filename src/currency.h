/*
 * currency.h
 *	  How many digits the minor unit of a currency has (ISO 4217).
 */
#ifndef LOYALTY_CURRENCY_H
#define LOYALTY_CURRENCY_H

extern int	currency_digits(const char *code);

#endif							/* LOYALTY_CURRENCY_H */
