select * from loyalty.bi_review
