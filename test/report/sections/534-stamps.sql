-- title: Stamp cards
-- chapter: Rules and rewards
-- about: Who collects, and full cards handed in.
-- view: bi_stamp_card
-- column: card text Card
-- column: members count Members
-- column: stamps number Stamps
-- column: claims count Full cards
-- column: offered yes Offered
SELECT card, members, stamps, claims, offered FROM loyalty.bi_stamp_card WHERE program_id = :program ORDER BY stamps DESC, card
