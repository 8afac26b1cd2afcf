-- title: Channels
-- chapter: Sales
-- about: Sales by channel, the part that members (not guests) bring, and what comes back.
-- view: bi_channel
-- column: channel text Channel
-- column: member_amount money Members
-- column: guest_amount money Guests
-- column: purchases count Purchases
-- column: members count Members who bought
-- column: average_order money Average order
-- column: return_rate percent Returned
-- chart: bars x=channel y=member_amount,guest_amount stack=yes horizontal=yes
SELECT coalesce(channel, '(none)') AS channel, amount - guest_amount AS member_amount, guest_amount, purchases, members, average_order, round(returned / nullif(amount, 0), 4) AS return_rate
FROM loyalty.bi_channel WHERE program_id = :program ORDER BY amount DESC, 1
