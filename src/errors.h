/*
 * errors.h
 *	  SQLSTATE class LY: everything that a caller of loyalty can do wrong.
 *
 * Grouped by hundreds: LY0 configuration, LY1 the facts of a transaction,
 * LY2 rules, LY3 members and accounts, LY4 points, LY5 attached tables,
 * LY6 keys, vouchers and personal data, LY7 rewards, coupons, stamps, challenges and referrals, LY8 statistics, LY9 the books
 * themselves.  Each code has a test.
 */
#ifndef LOYALTY_ERRORS_H
#define LOYALTY_ERRORS_H

#define LY(a, b, c) MAKE_SQLSTATE('L', 'Y', (a), (b), (c))

/* LY0: configuration */
#define ERRCODE_LY_INVALID_PROGRAM			LY('0', '0', '1')
#define ERRCODE_LY_UNKNOWN_PROGRAM			LY('0', '0', '2')
#define ERRCODE_LY_INVALID_TIER				LY('0', '0', '3')

/* LY1: the facts of a transaction */
#define ERRCODE_LY_INVALID_AMOUNT			LY('1', '0', '1')
#define ERRCODE_LY_INVALID_TIME				LY('1', '0', '2')
#define ERRCODE_LY_LINES_DISAGREE			LY('1', '0', '3')
#define ERRCODE_LY_CURRENCY_MISMATCH		LY('1', '0', '4')
#define ERRCODE_LY_DUPLICATE_REFERENCE		LY('1', '0', '5')
#define ERRCODE_LY_INVALID_LINE				LY('1', '0', '6')
#define ERRCODE_LY_INVALID_ACTIVITY			LY('1', '0', '7')
#define ERRCODE_LY_INVALID_STATUS			LY('1', '0', '8')
#define ERRCODE_LY_UNKNOWN_TRANSACTION		LY('1', '0', '9')

/* LY110, a number asked for, LY111 to LY116, returns, and LY161 and LY162, activities, are raised in SQL */
#define ERRCODE_LY_RETURN_KEPT				LY('1', '1', '7')

/* LY2: rules */
#define ERRCODE_LY_INVALID_RULE				LY('2', '0', '1')
#define ERRCODE_LY_RULE_NOT_ALLOWED			LY('2', '0', '2')
#define ERRCODE_LY_RULE_FAILED				LY('2', '0', '3')
#define ERRCODE_LY_POINTS_OVERFLOW			LY('2', '0', '4')
#define ERRCODE_LY_UNKNOWN_RULE				LY('2', '0', '5')

/* LY3: members and accounts */
#define ERRCODE_LY_UNKNOWN_MEMBER			LY('3', '0', '1')
#define ERRCODE_LY_MEMBER_CLOSED			LY('3', '0', '2')
#define ERRCODE_LY_MEMBER_KEPT				LY('3', '0', '3')

#define ERRCODE_LY_MEMBER_FROZEN				LY('3', '0', '5')
#define ERRCODE_LY_BLOCKED_IN_HOUSEHOLD		LY('3', '0', '6')
#define ERRCODE_LY_INVALID_HOUSEHOLD		LY('3', '0', '7')

/* LY304, a member that is not valid, is raised in SQL */

/* LY4: points */
#define ERRCODE_LY_INSUFFICIENT_POINTS		LY('4', '0', '1')
#define ERRCODE_LY_REASON_REQUIRED			LY('4', '0', '2')
#define ERRCODE_LY_INVALID_POINTS			LY('4', '0', '3')
#define ERRCODE_LY_KEY_REUSED				LY('4', '0', '4')
#define ERRCODE_LY_NOTHING_HELD				LY('4', '0', '5')
#define ERRCODE_LY_NOT_REINSTATED			LY('4', '0', '6')
#define ERRCODE_LY_AWARD_REFUSED			LY('4', '0', '7')
#define ERRCODE_LY_IN_DEBT					LY('4', '1', '1')
#define ERRCODE_LY_BELOW_MINIMUM			LY('4', '1', '2')
#define ERRCODE_LY_NOT_A_STEP				LY('4', '1', '3')
#define ERRCODE_LY_ABOVE_MAXIMUM			LY('4', '1', '4')
#define ERRCODE_LY_NO_POINT_VALUE			LY('4', '1', '5')
#define ERRCODE_LY_INVALID_HOLD				LY('4', '2', '1')
#define ERRCODE_LY_HOLD_RESOLVED			LY('4', '2', '2')
#define ERRCODE_LY_HOLD_EXPIRED				LY('4', '2', '3')
#define ERRCODE_LY_ABOVE_HOLD				LY('4', '2', '4')
#define ERRCODE_LY_UNKNOWN_REDEMPTION		LY('4', '2', '5')
#define ERRCODE_LY_ABOVE_REDEMPTION			LY('4', '2', '6')
#define ERRCODE_LY_INVALID_TRANSFER			LY('4', '3', '1')
#define ERRCODE_LY_INVALID_MERGE			LY('4', '3', '3')
/* LY442 to LY446, of proofs and cashiers, are raised in SQL */
#define ERRCODE_LY_PROOF_NEEDED				LY('4', '4', '1')
#define ERRCODE_LY_NO_DEBT					LY('4', '3', '2')

/* LY451 and LY452, limits that are not valid or not known, are raised in SQL */
#define ERRCODE_LY_LIMIT_REACHED			LY('4', '5', '3')

/* LY5: attached tables */
#define ERRCODE_LY_MAPPING_FAILED			LY('5', '0', '2')
#define ERRCODE_LY_TRUNCATE_REFUSED			LY('5', '0', '5')

/* LY6: keys, vouchers and personal data; LY612 to LY617, LY621, LY625 and LY626 are raised in SQL */
#define ERRCODE_LY_NO_KEY					LY('6', '0', '1')
#define ERRCODE_LY_KEY_FILE					LY('6', '0', '2')
#define ERRCODE_LY_UNKNOWN_KEY				LY('6', '0', '3')
#define ERRCODE_LY_FORGED_TOKEN				LY('6', '1', '1')
#define ERRCODE_LY_INVALID_VOUCHER			LY('6', '1', '8')
#define ERRCODE_LY_INVALID_CONTACT			LY('6', '2', '2')
#define ERRCODE_LY_DAMAGED_SEAL				LY('6', '2', '3')
#define ERRCODE_LY_INVALID_FIELD			LY('6', '2', '4')

/* LY7: rewards, coupons, stamps, challenges and referrals are raised in SQL */

/* LY8: statistics */
#define ERRCODE_LY_ITEMS_OF_TWO_KINDS		LY('8', '0', '1')
#define ERRCODE_LY_NOT_PART_OF				LY('8', '0', '2')
#define ERRCODE_LY_COPURCHASE_MEMORY		LY('8', '0', '3')
#define ERRCODE_LY_INVALID_STATISTIC		LY('8', '0', '4')
#define ERRCODE_LY_INVALID_SAMPLE			LY('8', '1', '1')

/* LY812, a setting of analysis, and LY813 to LY815, of co-purchase and suggestions, are raised in SQL */

/* LY9: the books themselves */
#define ERRCODE_LY_APPEND_ONLY				LY('9', '0', '1')
#define ERRCODE_LY_FORGED_CALL				LY('9', '0', '2')
#define ERRCODE_LY_BROKEN_BOOKS				LY('9', '0', '3')

/* LY904, nothing sealed, is raised in SQL */

#endif							/* LOYALTY_ERRORS_H */
