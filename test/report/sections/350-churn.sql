-- title: Signs of leaving
-- chapter: Members
-- about: How many members show each sign, and what they have spent so far. A member may show several.
-- view: bi_churn_reason
-- column: reason text Sign
-- column: members count Members
-- column: member_share percent Share
-- column: amount money They have spent
-- chart: bars x=reason y=members horizontal=yes label=yes
SELECT CASE reason WHEN 'none' THEN 'no sign at all' ELSE reason END AS reason, members, member_share, amount FROM loyalty.bi_churn_reason WHERE program_id = :program ORDER BY reason = 'none', members DESC
-- say
SELECT format('{percent %s} of the members show no sign of leaving.', member_share) FROM q WHERE reason = 'no sign at all'
