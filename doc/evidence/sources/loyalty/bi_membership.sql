select * from loyalty.bi_membership
