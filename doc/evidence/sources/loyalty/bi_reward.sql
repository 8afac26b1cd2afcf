select * from loyalty.bi_reward
