/*
 * proof.h
 *	  Who may spend: one-time codes, and what a cashier may redeem in a day.
 */
#ifndef LOYALTY_PROOF_H
#define LOYALTY_PROOF_H

#include "program.h"

extern int64 ProofDemand(const Program *program, int64 member_id, int64 account_id, int32 day,
						 int64 points, const char *proof,
						 int64 source_id);
extern void CashierRefuseOwn(const Program *program, int64 member_id, const char *cashier);
extern void CashierCount(const Program *program, const char *cashier, int32 day, int64 points);

#endif							/* LOYALTY_PROOF_H */
