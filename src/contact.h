/*
 * contact.h
 *	  The one spelling of a phone number, an e-mail address, a card number.
 */
#ifndef LOYALTY_CONTACT_H
#define LOYALTY_CONTACT_H

#include "core.h"

#define CONTACT_KIND_MAX 31
#define CONTACT_VALUE_MAX 254

extern bool contact_is_kind(const char *kind, size_t length);
extern size_t contact_normalise(const char *kind, const char *country, const char *value,
								size_t length, char *normal);

#endif							/* LOYALTY_CONTACT_H */
