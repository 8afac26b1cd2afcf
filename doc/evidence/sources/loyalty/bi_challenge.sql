select * from loyalty.bi_challenge
